//! What the CA and a node keep on disk: private, there again after a restart, named when it is damaged.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_kept_is_private_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/on/the/way");
    let first = Authority::open(&path).unwrap();
    let node = Identity::open(&path).unwrap();
    let issued = first.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap();
    node.install(&issued.chain).unwrap();
    for name in ["ca.key", "ca.pem", "node.key", "node.pem"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }

    let (authority, again) = (Authority::open(&path).unwrap(), Identity::open(&path).unwrap());
    assert_eq!(authority.fingerprint(), first.fingerprint());
    assert_eq!((again.node(), again.certificate()), (node.node(), node.certificate()));
    // What was signed before and after the restart belongs together.
    meet(&again, &member(&authority, Role::Peer)).unwrap();

    let late = first.issue_for(&node.csr().unwrap(), Role::Peer, SystemTime::now() - 2 * HOUR, HOUR).unwrap();
    node.install(&late.chain).unwrap();
    let again = Identity::open(&path).unwrap();
    assert!(again.certificate().is_some() && !again.is_valid(SystemTime::now()), "an expired one is kept");
}

#[test]
fn a_ca_key_alone_keeps_the_members() {
    let dir = tempfile::tempdir().unwrap();
    let old = member(&Authority::open(dir.path()).unwrap(), Role::Peer);
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let new = member(&Authority::open(dir.path()).unwrap(), Role::Peer);
    meet(&old, &new).unwrap();
    meet(&new, &old).unwrap();
}

#[test]
fn damaged_files_are_named_on_one_line_with_a_way_out() {
    let complain = |name: &str, content: Option<&[u8]>| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let authority = Authority::open(dir.path()).unwrap();
        let node = Identity::open(dir.path()).unwrap();
        node.install(&authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain)
            .unwrap();
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = match name.starts_with("ca") {
            true => Authority::open(dir.path()).unwrap_err(),
            false => Identity::open(dir.path()).unwrap_err(),
        };
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("aside") && !text.contains('\n'), "{text}");
        text
    };
    let garbage: [&[u8]; 4] = [
        b"",
        b"\xff\x00",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ];
    for name in ["ca.pem", "ca.key", "node.pem", "node.key"] {
        for content in garbage {
            complain(name, Some(content));
        }
    }
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert!(complain("ca.key", Some(other.as_bytes())).contains("does not belong to ca.pem"));
    assert!(complain("ca.key", None).contains("no ca.key beside it"));
}

#[test]
fn a_certificate_of_another_key_means_to_enrol_again() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let node = Identity::open(dir.path()).unwrap();
    node.install(&authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain)
        .unwrap();
    std::fs::remove_file(dir.path().join("node.key")).unwrap();
    let new = Identity::open(dir.path()).unwrap();
    assert!(new.node() != node.node() && new.certificate().is_none());
}

#[test]
fn a_file_where_the_folder_should_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, b"").unwrap();
    for error in [
        Authority::open(&file).unwrap_err(),
        Identity::open(&file).unwrap_err(),
        TokenBook::open(&file).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn nothing_that_is_printed_for_debugging_holds_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        format!("{:?} {:?}", Authority::open(dir.path()).unwrap(), Identity::open(dir.path()).unwrap());
    assert!(text.contains("fingerprint") && text.len() < 300, "{text}");
}
