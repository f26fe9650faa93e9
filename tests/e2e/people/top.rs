//! `longshore top`: once as text, and on a real pseudo-terminal, which it gives back.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::client;
use crate::support::cluster::{Cluster, Node, World, longshore, run};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::process::Process;
use crate::support::{eventually, need};

const MIB: usize = 1 << 20;
/// What a terminal is told when the screen that a program had for itself goes.
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// `longshore top` on a terminal of `script`'s; its id is in `pid`.
fn on_a_terminal(node: &Node, keys: &str) -> (Process, std::path::PathBuf) {
    let (log, pid) = (node.data.join("top.log"), node.data.join("top.pid"));
    for old in [&log, &pid] {
        let _ = std::fs::remove_file(old);
    }
    let program = longshore(&node.data).get_program().to_string_lossy().into_owned();
    let top = format!(
        "sh -c 'stty cols 120 rows 40; echo \\$\\$ > {}; exec {program} top --data-dir {}'",
        pid.display(),
        node.data.display()
    );
    let line = format!("({keys}) | script -qec \"{top}\" /dev/null");
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("TERM", "xterm-256color").stdin(Stdio::null());
    (Process::spawn("top", &mut command, &log), pid)
}

async fn cluster() -> (Origin, Cluster) {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let image = Image::single("team/app", 2 * MIB, 430);
    origin.add(&image);
    client::pull(cluster.peers[0].at.proxy.clone(), "quay.test".to_owned(), image).await;
    (origin, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn once_it_prints_a_plain_frame_of_a_peer_and_of_a_supernode() {
    let (_origin, cluster) = cluster().await;
    for (node, parts) in [
        (&cluster.peers[0], ["peer ", "1 of 1 supernodes", "quay.test/team/app", "from seed", "cache:"]),
        (&cluster.supernode, ["supernode ", "1 sessions", "pulls:", "from origin", "cache:"]),
    ] {
        let dir = node.data.display().to_string();
        // Without a terminal it does so by itself.
        for more in [&[][..], &["--once"][..]] {
            let (status, frame) = run(&node.data, &[&["top", "--data-dir", &dir], more].concat()).await;
            assert_eq!(status, Some(0), "{frame}");
            assert!(!frame.contains('\u{1b}'), "{frame}");
            parts.iter().for_each(|part| assert!(frame.contains(part), "{part} in\n{frame}"));
        }
    }
    let (status, said) = run(cluster.root(), &["top", "--data-dir", "/nowhere"]).await;
    assert!(status == Some(1) && said.contains("no daemon runs in /nowhere"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_takes_keys_and_gives_the_terminal_back() {
    need!("script", "sh", "stty");
    let (_origin, cluster) = cluster().await;
    let peer = &cluster.peers[0];
    let (mut top, _) = on_a_terminal(peer, "sleep 3; printf ?; sleep 1; printf '?ss\\t'; sleep 2; printf q");
    assert!(top.end().await.success(), "{}", top.said());
    let said = top.said();
    // Only what changes is drawn, so words that others share letters with come in parts: the help's, and the second page's.
    for part in ["quay.test/team/app", "column", "HERE", GIVEN_BACK] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    let (top, pid) = on_a_terminal(peer, "sleep 600");
    eventually("a frame", async || top.said().contains("cache:").then_some(())).await;
    let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    eventually("the terminal", async || top.said().contains(GIVEN_BACK).then_some(())).await;
}
