//! The one binary, `longshore`: reads the command line and calls the rooms. Exit codes: 0 done, 1 it did not work,
//! 2 the command line or a setting makes no sense; those of `get` are in `get::exit`.

#![allow(unreachable_pub, reason = "a binary has no outside; `pub` marks what other modules use")]

mod addresses;
mod ca;
mod cli;
mod cluster_folder;
mod daemons;
mod demo;
mod doctor;
mod explain;
mod get;
mod joining;
mod local;
mod log;
mod manual;
mod node;
mod peers;
mod preheat;
mod progress;
mod reload;
mod settings;
mod setup;
mod shutdown;
mod status;
mod tasks;
mod token;
mod top;
mod traces;

use std::process::ExitCode;

use clap::Parser as _;

/// What the user said makes no sense; exit code 2.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Marks an error as the user's.
fn usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    // One line, with its causes.
    Usage(format!("{:#}", error.into())).into()
}

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    common::identity::install_crypto_provider();
    let quiet = matches!(
        arguments.command,
        cli::Command::Get(_)
            | cli::Command::Demo(_)
            | cli::Command::Doctor(_)
            | cli::Command::Setup(_)
            | cli::Command::Top(_)
            | cli::Command::Preheat(_)
            | cli::Command::Preheats(_)
    );
    let default = if quiet { "error" } else { "info" };
    common::telemetry::init_logging(arguments.log_format.into(), default);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&anyhow::Error::from(error).context("cannot start the runtime")),
    };
    let fetching = matches!(arguments.command, cli::Command::Get(_));
    let done = runtime.block_on(run(arguments));
    // Reads of a terminal or a stuck disk must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if fetching => {
            let code = get::exit::code(&error);
            if !get::exit::is_silent(&error) {
                report(&error);
            }
            ExitCode::from(code)
        }
        Err(error) => report(&error),
    }
}

async fn run(arguments: cli::Arguments) -> anyhow::Result<()> {
    match arguments.command {
        cli::Command::Up(flags) => daemons::up(flags).await,
        cli::Command::Supernode(flags) => daemons::supernode(flags).await,
        cli::Command::Peer(flags) => daemons::peer(flags).await,
        cli::Command::Demo(flags) => demo::run(flags).await,
        cli::Command::Get(flags) => get::run(flags).await,
        cli::Command::Preheat(flags) => preheat::run(flags).await,
        cli::Command::Preheats(flags) => preheat::jobs(flags).await,
        cli::Command::Status(flags) => status::run(flags).await,
        cli::Command::Peers(flags) => peers::run(flags).await,
        cli::Command::Tasks(flags) => tasks::run(flags).await,
        cli::Command::Explain(flags) => explain::run(flags).await,
        cli::Command::Top(flags) => top::run(flags).await,
        cli::Command::Log(flags) => log::run(flags).await,
        cli::Command::Completions(flags) => manual::completions(flags),
        cli::Command::Man(flags) => manual::pages(flags),
        cli::Command::Doctor(flags) => doctor::run(flags).await,
        cli::Command::Setup(flags) => setup::run(flags),
        cli::Command::Token(flags) => token::run(flags),
        cli::Command::Node(flags) => node::run(flags),
        cli::Command::Ca(flags) => ca::run(flags),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failing command")]
fn report(error: &anyhow::Error) -> ExitCode {
    let line = format!("{error:#}").replace('\n', " ");
    eprintln!("longshore: {line}");
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}
