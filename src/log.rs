//! `longshore log`: what the local daemon logs. Of `longshore up` both daemons log as one.

use hyper::Method;
use peer::local_api::log::Logged;

use crate::cli::Log;
use crate::local::{self, Kind};

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub async fn run(flags: Log) -> anyhow::Result<()> {
    let kinds: &[Kind] = if flags.supernode { &[Kind::Supernode] } else { &[Kind::Peer, Kind::Supernode] };
    let mut daemon = local::daemon(&flags.at, kinds).await?;
    match flags.directives {
        Some(directives) => {
            let wish = serde_json::to_vec(&Logged { directives })?;
            daemon.ask(Method::PUT, "/log", wish).await?;
        }
        None => {
            let logged: Logged = serde_json::from_value(daemon.json("/log").await?)?;
            println!("{}", logged.directives);
        }
    }
    Ok(())
}
