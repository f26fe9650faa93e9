//! One CA takes over from another: who meets whom before, while and after, and what is left of words and tokens.

use super::*;

/// A node that has heard what the authority says.
fn told(authority: &Authority, role: Role) -> Identity {
    let node = member(authority, role);
    node.believe_authorities(&authority.told()).unwrap();
    node
}

fn renew(node: &Identity, authority: &Authority) {
    node.install(&authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain)
        .unwrap();
}

fn meet_both_ways(one: &Identity, two: &Identity) {
    meet(one, two).unwrap();
    meet(two, one).unwrap();
}

#[test]
fn nobody_is_cut_off_while_one_ca_takes_over_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, rotation) = (Authority::open(dir.path()).unwrap(), Rotation::of(dir.path()));
    let old_ca = authority.fingerprint();
    let (away, present) = (member(&authority, Role::Peer), told(&authority, Role::Peer));
    let word = Sealer::new(&authority).seal("kind", &[b"before"]);
    assert!(!authority.reload().unwrap());

    rotation.begin(SystemTime::now()).unwrap();
    rotation.begin(SystemTime::now()).unwrap_err();
    assert!(authority.reload().unwrap() && authority.fingerprint() != old_ca && authority.is_ours(old_ca));
    assert!(Sealer::new(&authority).verify("kind", &[b"before"], &word));
    assert!(present.believe_authorities(&authority.told()).unwrap());
    assert!(!present.believe_authorities(&authority.told()).unwrap(), "no news");
    let supernode = told(&authority, Role::Supernode);
    let newcomer = member(&authority, Role::Peer);
    meet_both_ways(&away, &supernode);
    meet_both_ways(&present, &supernode);
    meet_both_ways(&newcomer, &supernode);
    meet_both_ways(&away, &present);
    renew(&present, &authority);
    meet_both_ways(&away, &present);
    meet_both_ways(&newcomer, &present);
    newcomer.believe_authorities(&authority.told()).unwrap();
    meet_both_ways(&away, &newcomer);
    for token in [old_ca, authority.fingerprint()] {
        let stranger = enrolment_client_config(token).unwrap();
        handshake(stranger, supernode.server_config(Admits::MembersAndStrangers).unwrap(), SUPERNODE_NAME)
            .unwrap();
    }

    let early = rotation.finish(SystemTime::now(), false).unwrap_err();
    assert!(early.to_string().contains("--force"), "{early}");
    rotation.finish(SystemTime::now() + LIFETIME + HOUR, false).unwrap();
    assert!(authority.reload().unwrap() && !authority.is_ours(old_ca));
    assert!(!Sealer::new(&authority).verify("kind", &[b"before"], &word));
    for node in [&supernode, &present, &newcomer] {
        assert!(node.believe_authorities(&authority.told()).unwrap() && node.is_of_cluster(old_ca));
    }
    meet_both_ways(&present, &supernode);
    meet_both_ways(&present, &newcomer);
    meet(&away, &supernode).unwrap_err();
    meet(&supernode, &away).unwrap_err();
    let stranger = enrolment_client_config(old_ca).unwrap();
    handshake(stranger, supernode.server_config(Admits::MembersAndStrangers).unwrap(), SUPERNODE_NAME)
        .unwrap_err();
}

#[test]
fn the_certificate_of_a_ca_that_goes_is_renewed_early() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let node = told(&authority, Role::Peer);
    let now = SystemTime::now();
    Rotation::of(dir.path()).begin(now).unwrap();
    authority.reload().unwrap();
    node.believe_authorities(&authority.told()).unwrap();
    assert!(node.renewal_due(SystemTime::now() + Duration::from_secs(301)));
    renew(&node, &authority);
    assert!(!node.renewal_due(SystemTime::now() + Duration::from_secs(301)));

    let late = member(&authority, Role::Peer);
    Rotation::of(dir.path()).finish(now, true).unwrap();
    Rotation::of(dir.path()).begin(now).unwrap();
    Rotation::of(dir.path()).finish(now, true).unwrap();
    authority.reload().unwrap();
    late.believe_authorities(&authority.told()).unwrap();
    assert!(late.renewal_due(SystemTime::now()), "at once: nobody believes it any more");
}

#[test]
fn an_old_member_gets_the_old_ca_as_long_as_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let (old, now) = (member(&authority, Role::Peer), SystemTime::now());
    let ca = authority.certificate().to_vec();
    Rotation::of(dir.path()).begin(now).unwrap();
    authority.reload().unwrap();
    let chain = |version| authority.renew(&old.csr().unwrap(), now, version).unwrap().chain;
    assert!(chain(1)[1] == ca && chain(2)[1] != ca);
    old.install(&chain(1)).unwrap();
}

#[test]
fn what_was_told_is_kept_and_another_cluster_forgets_it() {
    let (here, elsewhere, home) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::open(here.path()).unwrap();
    let node = Identity::open(home.path()).unwrap();
    let issued = |authority: &Authority| {
        authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain
    };
    node.join(&issued(&authority), authority.fingerprint()).unwrap();
    Rotation::of(here.path()).begin(SystemTime::now()).unwrap();
    authority.reload().unwrap();
    node.believe_authorities(&authority.told()).unwrap();
    let again = Identity::open(home.path()).unwrap();
    assert_eq!((again.authorities().len(), again.authorities()), (2, node.authorities()));
    meet_both_ways(&again, &told(&authority, Role::Supernode));

    let other = Authority::open(elsewhere.path()).unwrap();
    node.join(&issued(&other), other.fingerprint()).unwrap();
    assert_eq!(node.authorities(), [other.fingerprint()]);
    assert_eq!(Identity::open(home.path()).unwrap().authorities(), [other.fingerprint()]);
    assert!(!node.is_of_cluster(authority.fingerprint()));
}

#[test]
fn a_proof_of_the_ca_that_goes_is_one_of_the_cluster_that_the_next_ca_lets_in() {
    let (here, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::open(here.path()).unwrap();
    let pinned = authority.fingerprint();
    Rotation::of(here.path()).begin(SystemTime::now()).unwrap();
    authority.reload().unwrap();
    let node = Identity::open(home.path()).unwrap();
    let chain = authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain;
    node.join(&chain, pinned).unwrap();
    for node in [&node, &Identity::open(home.path()).unwrap()] {
        assert!(node.is_of_cluster(pinned), "or it would join again and again");
        assert_eq!(node.authorities(), [authority.fingerprint()], "remembered is not believed");
    }
    meet_both_ways(&node, &told(&authority, Role::Supernode));
    assert!(node.believe_authorities(&authority.told()).unwrap());
    assert_eq!(node.authorities().len(), 2);
}

#[test]
fn an_end_that_was_interrupted_counts_and_can_be_completed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let rotation = Rotation::of(dir.path());
    rotation.finish(SystemTime::now(), true).unwrap_err();
    rotation.begin(SystemTime::now()).unwrap();
    let next = std::fs::read(dir.path().join("ca-next.pem")).unwrap();
    let old_pem = std::fs::read(dir.path().join("ca.pem")).unwrap();
    rotation.finish(SystemTime::now(), true).unwrap();
    let ended = rotation.status().unwrap();
    // As after a crash behind its first step.
    std::fs::write(dir.path().join("ca.pem"), old_pem).unwrap();
    files::write_secret(&dir.path().join("ca-next.pem"), &next).unwrap();
    assert_eq!(rotation.status().unwrap(), ended);
    authority.reload().unwrap();
    rotation.finish(SystemTime::now(), false).unwrap();
    assert_eq!(rotation.status().unwrap(), ended);
    assert_eq!(Authority::open(dir.path()).unwrap().fingerprint(), authority.fingerprint());
}

#[test]
fn what_a_supernode_says_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let node = member(&authority, Role::Peer);
    let leaf = authority.issue(&node.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap().chain.remove(0);
    let ca = authority.certificate().to_vec();
    for bad in [vec![], vec![leaf], vec![vec![1, 2, 3]], vec![ca; 7], vec![vec![0; 5000]]] {
        assert!(node.believe_authorities(&bad).is_err());
    }
    assert_eq!(node.authorities(), [authority.fingerprint()]);
}

#[derive(Debug)]
struct Clock(Duration, bool);

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Some(rustls::pki_types::UnixTime::since_unix_epoch(if self.1 { now + self.0 } else { now - self.0 }))
    }
}

#[test]
fn a_node_whose_clock_is_an_hour_off_meets_the_others() {
    let authority = authority();
    let (one, two) = (member(&authority, Role::Peer), member(&authority, Role::Peer));
    for ahead in [true, false] {
        let clock = Arc::new(Clock(HOUR, ahead));
        let (mut dials, mut listens) =
            (one.client_config().unwrap(), one.server_config(Admits::Members).unwrap());
        (dials.time_provider, listens.time_provider) = (clock.clone(), clock);
        handshake(dials, two.server_config(Admits::Members).unwrap(), &server_name(two.node())).unwrap();
        handshake(two.client_config().unwrap(), listens, &server_name(one.node())).unwrap();
    }
}
