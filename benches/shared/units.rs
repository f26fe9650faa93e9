//! Rates and sizes as the benches' command lines take them. Included with `#[path]`.

/// Bits a second of a text such as `800kbit`, `50mbit` or `1.5gbit`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 4] = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)];
    scaled(text, &UNITS)
        .ok_or_else(|| format!("`{text}` is no rate: write a number and kbit, mbit or gbit, as in 50mbit"))
}

/// Bytes of a text such as `256KiB`, `64MiB`, `1GiB` or `100MB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 8] = [
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("tib", 1_099_511_627_776.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("b", 1.0),
    ];
    scaled(text, &UNITS).ok_or_else(|| {
        format!("`{text}` is no size: write a number and KiB, MiB, GiB, kB, MB or GB, as in 64MiB")
    })
}

/// The number in front of the first of `units` that `text` ends with, times that unit. At least 1.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let value = (number.trim().parse::<f64>().ok()? * unit).round();
    (1.0..9e18).contains(&value).then_some(value as u64)
}
