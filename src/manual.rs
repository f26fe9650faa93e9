//! `longshore completions` and `longshore man`: what shells and `man` want to know, out of the command line's own
//! description, so that it is never older than the binary.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{Arguments, Completions, Man};

const NAME: &str = "longshore";

/// Writes a shell's completions to the standard output.
pub fn completions(flags: Completions) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(flags.shell, &mut Arguments::command(), NAME, &mut text);
    io::stdout().write_all(&text).context("cannot write the completions")
}

/// Writes a page for each command.
pub fn pages(flags: Man) -> anyhow::Result<()> {
    let named = || format!("cannot write manual pages to {}: name another folder", flags.dir.display());
    std::fs::create_dir_all(&flags.dir).with_context(named)?;
    clap_mangen::generate_to(Arguments::command(), &flags.dir).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        pages(Man { dir: dir.path().join("man1") }).unwrap();
        let commands = Arguments::command();
        for name in commands.get_subcommands().map(|command| command.get_name()) {
            let page = dir.path().join(format!("man1/{NAME}-{name}.1"));
            assert!(std::fs::read_to_string(&page).unwrap().contains(".TH"), "{name}");
        }
        assert!(pages(Man { dir: "/proc/none".into() }).unwrap_err().to_string().contains("/proc/none"));
    }
}
