//! Groups of this machine's users, by name.

use anyhow::{Context as _, bail};

/// Where they are, as group(5) has it: name, password, number, members.
const FILE: &str = "/etc/group";

/// The number of a group that is named, or numbered already.
///
/// # Errors
/// When there is none of that name in `/etc/group`: those of directory services are given by number.
pub(super) fn number(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let all = std::fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    match find(&all, name) {
        Some(number) => Ok(number),
        None => bail!("there is no group {name:?} in {FILE}: make it with groupadd, or give its number"),
    }
}

fn find(all: &str, name: &str) -> Option<u32> {
    all.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let all = "root:x:0:\nlong:x:7:a,b\nlongshore:x:42:\nbroken\n";
        assert_eq!(
            (find(all, "longshore"), find(all, "long"), find(all, "broken")),
            (Some(42), Some(7), None)
        );
        assert_eq!((number("17").unwrap(), number("root").unwrap()), (17, 0));
        assert!(number("no such group").is_err());
    }
}
