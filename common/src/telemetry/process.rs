//! What the kernel counts for this process, read when the metrics are: resident memory and processor time.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge};

const MEMORY: (&str, &str) =
    ("longshore_process_resident_memory_bytes", "Memory of this process that is in RAM");
const CPU: (&str, &str) =
    ("longshore_process_cpu_seconds_total", "Processor time that this process has used");

/// `/proc` counts in ticks of `USER_HZ`, which is 100 on every architecture that Longshore is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collects both; what `/proc` does not say is left out.
pub(super) struct Process {
    memory: IntGauge,
    cpu: Counter,
}

// === impl Process ===

impl Process {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self { memory: IntGauge::new(MEMORY.0, MEMORY.1)?, cpu: Counter::new(CPU.0, CPU.1)? })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        [self.memory.desc(), self.cpu.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let mut families = Vec::new();
        if let Some(bytes) = resident_bytes(&read("/proc/self/status")) {
            self.memory.set(bytes);
            families.extend(self.memory.collect());
        }
        // A counter only grows by steps, and two readers at once would step twice: so a fresh one each time.
        let fresh = Counter::new(CPU.0, CPU.1).ok().zip(cpu_seconds(&read("/proc/self/stat")));
        if let Some((counter, seconds)) = fresh {
            counter.inc_by(seconds);
            families.extend(counter.collect());
        }
        families
    }
}

/// `VmRSS` is in KiB, where `statm` counts pages of a size that only a system call tells.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// User and system time: fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()?.checked_add(fields.next()?.ok()?)?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(resident_bytes("VmHWM:\t  99 kB\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(cpu_seconds("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(2.0));
        for nonsense in ["", "VmRSS: x kB", "7 (x) S 1 2"] {
            assert_eq!(resident_bytes(nonsense), None);
            assert_eq!(cpu_seconds(nonsense), None);
        }
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let families = Process::new().unwrap().collect();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, [MEMORY.0, CPU.0]);
        assert!(families[0].get_metric()[0].get_gauge().get_value() > 0.0);
    }
}
