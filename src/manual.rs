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

    /// The lines of a page's shell blocks that call `longshore`, without comments, pipes and the like.
    fn commands(page: &str) -> Vec<String> {
        let page = page.replace("\\\n", " ");
        let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(|line| line.split(" # ").next().unwrap_or(line));
        let parts = lines.flat_map(|line| line.split(['|', ';', '>'])).flat_map(|part| part.split("&&"));
        let calls = parts.map(|part| part.trim().trim_start_matches("sudo ").to_owned());
        calls.filter(|call| call.starts_with("longshore ") && !call.contains(['$', '…'])).collect()
    }

    /// As a shell reads them: what is between quotes is one.
    fn words(call: &str) -> Vec<String> {
        let parts = call.split(['\'', '"']).enumerate();
        parts.fold(Vec::new(), |mut words, (number, part)| {
            match number % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
            words
        })
    }

    #[test]
    fn every_command_of_the_documentation_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut pages, mut folders) = (vec![root.join("README.md")], vec![root.join("docs")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => pages.extend(Some(path).filter(|path| path.extension() == Some("md".as_ref()))),
                }
            }
        }
        let mut seen = 0;
        for page in pages {
            for call in commands(&std::fs::read_to_string(&page).unwrap()) {
                let read = Arguments::command().try_get_matches_from(words(&call));
                let fine = read.as_ref().err().is_none_or(|error| error.exit_code() == 0);
                assert!(fine, "{}: {call}: {}", page.display(), read.unwrap_err());
                seen += 1;
            }
        }
        assert!(seen > 80, "{seen} commands were found");
    }

    #[test]
    fn every_setting_of_the_daemons_is_in_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let reference = std::fs::read_to_string(path).unwrap();
        let commands = Arguments::command();
        for command in ["supernode", "peer", "up"] {
            let command = commands.find_subcommand(command).unwrap();
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(reference.contains(&format!("`--{flag}")), "--{flag} is missing in docs/settings.md");
            }
        }
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
