//! `longshore ca`: changes the cluster's CA without anybody being cut off. Running supernodes see it within seconds and tell
//! all peers.

use std::time::SystemTime;

use common::identity::Rotation;
use serde_json::json;

use crate::cli::{Ca, CaDeed};
use crate::cluster_folder;
use crate::node::in_words;

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub fn run(flags: Ca) -> anyhow::Result<()> {
    let dir = cluster_folder::find(&flags.folder)?;
    let (rotation, now) = (Rotation::of(&dir), SystemTime::now());
    match flags.deed {
        CaDeed::Status => {}
        CaDeed::Rotate => rotation.begin(now)?,
        CaDeed::Finish { force } => rotation.finish(now, force)?,
    }
    let status = rotation.status()?;
    let until = |time: SystemTime| time.duration_since(now).unwrap_or_default();
    if flags.folder.json {
        let seconds = |time| until(time).as_secs();
        println!(
            "{}",
            json!({
                "ca": status.present.hex(),
                "expires_in_seconds": seconds(status.expires),
                "former": status.former.map(|(ca, _)| ca.hex()),
                "finish_in_seconds": status.former.map(|(_, ready)| seconds(ready)),
            })
        );
        return Ok(());
    }
    println!("CA      {}, good for another {}", status.present.hex(), in_words(until(status.expires)));
    if let Some((former, ready)) = status.former {
        println!("former  {}, still believed", former.hex());
        match until(ready) {
            wait if wait.is_zero() => println!("`longshore ca finish` may end the rotation now"),
            wait => println!("`longshore ca finish` may end the rotation in {}", in_words(wait)),
        }
    }
    Ok(())
}
