//! What a plan would change, as a unified diff that `patch` understands. Called to show a plan before it is carried out.

use std::path::Path;

use similar::TextDiff;

/// The difference between two contents of a file; no content is no file.
pub(super) fn unified(path: &Path, before: Option<&str>, after: Option<&str>) -> String {
    let name = path.display().to_string();
    let of = |text: Option<&str>| if text.is_some() { name.clone() } else { "/dev/null".into() };
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    TextDiff::from_lines(old, new).unified_diff().header(&of(before), &of(after)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_the_file_and_what_is_not_there() {
        let path = Path::new("/etc/x");
        let made = unified(path, None, Some("a\n"));
        assert!(made.starts_with("--- /dev/null\n+++ /etc/x\n@@ -0,0 +1 @@\n+a\n"), "{made}");
        let changed = unified(path, Some("a\nb"), Some("a\nc\n"));
        assert!(changed.contains("-b\n\\ No newline at end of file\n+c\n"), "{changed}");
        assert_eq!(unified(path, Some("a"), Some("a")), "");
    }
}
