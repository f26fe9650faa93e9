//! `longshore explain`: what a pull on this node spent its time on. The daemon remembers and reckons (`peer::record`); here it
//! is only drawn, by [`draw`] and [`list`].

mod draw;
mod list;

use std::io::IsTerminal as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use peer::local_api::pulls::Pulls;
use peer::record::explain::Explanation;

use crate::cli::Explain;
use crate::local::{self, Daemon, Kind, Refused};

/// Columns where there is no terminal to ask.
const COLUMNS: usize = 100;

/// Runs the command.
pub async fn run(flags: Explain) -> anyhow::Result<()> {
    let kinds: &[Kind] = if flags.supernode { &[Kind::Supernode] } else { &[Kind::Peer, Kind::Supernode] };
    let mut daemon = local::daemon(&flags.at, kinds).await?;
    match &flags.what {
        Some(what) => explain(&mut daemon, what, flags.json).await,
        None => latest(&mut daemon, flags.json).await,
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
async fn explain(daemon: &mut Daemon, what: &str, json: bool) -> anyhow::Result<()> {
    let answer = match daemon.json(&format!("/pulls/explain?{}", query(what)?)).await {
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404) => {
            return unknown(daemon, &error).await;
        }
        answer => answer?,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    let explanation: Explanation = serde_json::from_value(answer)?;
    let style = draw::Style { columns: columns(), blocks: std::io::stdout().is_terminal() };
    print!("{}", draw::page(&explanation, style, now()));
    Ok(())
}

/// Says what there is instead.
#[expect(clippy::print_stderr, reason = "help beside an error")]
async fn unknown(daemon: &mut Daemon, error: &anyhow::Error) -> anyhow::Result<()> {
    let pulls: Pulls = serde_json::from_value(daemon.json("/pulls").await?)?;
    let known = list::page(&pulls, now());
    if known.is_empty() {
        return Err(anyhow!("{error}, nor of anything else since the daemon's start: pull it first"));
    }
    eprint!("{known}");
    Err(anyhow!(
        "{error}: these are; name an image as it was typed to the runtime, or a task by 8 digits or more"
    ))
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
async fn latest(daemon: &mut Daemon, json: bool) -> anyhow::Result<()> {
    let answer = daemon.json("/pulls").await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    let known = list::page(&serde_json::from_value(answer)?, now());
    match known.is_empty() {
        true => println!("nothing was pulled since the daemon's start"),
        false => print!("{known}"),
    }
    Ok(())
}

/// `of=…`, with all that needs it escaped.
fn query(what: &str) -> anyhow::Result<String> {
    let url = reqwest::Url::parse_with_params("http://daemon/", [("of", what)])?;
    Ok(url.query().unwrap_or_default().to_owned())
}

fn columns() -> usize {
    let terminal = std::io::stdout().is_terminal();
    let size = terminal.then(ratatui::crossterm::terminal::size).and_then(Result::ok);
    size.map_or(COLUMNS, |(columns, _)| usize::from(columns).max(1))
}

/// Unix milliseconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
