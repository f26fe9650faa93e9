//! Other users of the machine, through the socket that a peer opens for them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::cluster::{Cluster, LONGSHORE, World, longshore};
use crate::support::faulty::Origin;
use crate::support::image::noise;
use crate::support::need;
use crate::support::process::output;

/// A user without rights, and the group of the same number.
const NOBODY: &str = "65534";

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_open_the_socket_for_clients_may_fetch_and_nothing_else() {
    need!("root", "setpriv");
    // The tests' own folder may be closed to others.
    let (origin, home) = (Origin::start().await, TempDir::new_in("/tmp").unwrap());
    let content = noise(3 << 20, 85);
    let url = origin.add_file("file", content.clone());
    let socket = home.path().join("get.sock").display().to_string();
    let world = World::default().allowing(&origin.address).set("LONGSHORE_PEER_CLIENT_SOCKET", &socket);
    let cluster = Cluster::start(1, world.set("LONGSHORE_PEER_CLIENT_SOCKET_GROUP", NOBODY)).await;
    // The program may lie where only its owner comes.
    let program = home.path().join("longshore");
    std::fs::copy(LONGSHORE, &program).unwrap();
    [home.path(), &program].into_iter().for_each(open_to_all);
    let as_user = async |group: &str, arguments: &[&str]| -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", group, "--clear-groups"]).args(arguments);
        for (name, value) in longshore(home.path()).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        output(&command).await
    };
    let program = program.display().to_string();
    let get = [program.as_str(), "get", &url, "-o", "-", "--socket", &socket];
    let ended = as_user(NOBODY, &get).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout == content, "other bytes than the origin's");
    let received = cluster.peers[0].received().await;
    assert_eq!(received.origin + received.seed, content.len() as u64, "not by the peer");
    let ended = as_user("65533", &get).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("get.sock"), "{ended:?}");
    for path in ["status", "tasks", "log"] {
        let client = reqwest::Client::builder().unix_socket(socket.as_str()).build().unwrap();
        let answer = client.get(format!("http://peer/v1/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}
