//! What a daemon's author and a daemon's user may rely on.

use super::*;
use crate::config::{ByteSize, Kind, ListenAddr, Rate, Span};
use proptest::prelude::*;
use std::time::Duration;

static SCHEMA: Schema = Schema {
    sections: &[
        (
            "peer",
            &[&[
                Key::new("data-dir", Kind::Text, "/var/lib/longshore"),
                Key::new("quota", Kind::Size, "10GiB"),
                Key::new("upload-limit", Kind::Rate, "200mbit"),
                Key::new("grace", Kind::Span, "5m"),
                Key::new("proxy-listen", Kind::Address, "127.0.0.1:7711"),
                Key::new("supernode", Kind::List, "10.0.0.1:7700,10.0.0.2:7700"),
                Key::new("registry", Kind::Table, "docker.io=http://127.0.0.1:5600"),
                Key::new("slots", Kind::Number, "8"),
                Key::new("seed", Kind::Bool, "true"),
            ]],
        ),
        ("supernode", &[&[Key::new("origin-allow", Kind::List, "docker.io")]]),
    ],
    exempt: &["LONGSHORE_IMAGE", "LONGSHORE_TESTS_"],
};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Peer {
    data_dir: Option<String>,
    quota: ByteSize,
    upload_limit: Rate,
    grace: Span,
    proxy_listen: Option<ListenAddr>,
    supernode: Vec<String>,
    registry: BTreeMap<String, String>,
    slots: u16,
    seed: bool,
}

fn file(text: &str) -> Settings {
    Settings::from_str(text, "x.toml").unwrap()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn peer(settings: &Settings) -> Result<Peer, String> {
    settings.section("peer", &SCHEMA).map_err(|error| error.to_string())
}

fn refused_file(text: &str) -> String {
    match Settings::from_str(text, "x.toml") {
        Ok(settings) => peer(&settings).unwrap_err(),
        Err(error) => error.to_string(),
    }
}

fn refused_env(name: &str, value: &str) -> String {
    Settings::empty().overlay_env(env(&[(name, value)]).into_iter(), &SCHEMA).unwrap_err().to_string()
}

#[test]
fn a_file_fills_a_section_and_leaves_the_rest_at_default() {
    let settings = file(
        r#"
        [peer]
        data-dir = "/data"
        quota = "10GiB"
        upload-limit = "200mbit"
        grace = 90
        proxy-listen = 7711
        supernode = "a:7700"
        slots = 8
        seed = true
        [peer.registry]
        "docker.io" = "http://127.0.0.1:5600"
        [supernode]
        "#,
    );
    let expected = Peer {
        data_dir: Some("/data".into()),
        quota: ByteSize(10 << 30),
        upload_limit: Rate::new(25_000_000),
        grace: Span(Duration::from_secs(90)),
        proxy_listen: Some(ListenAddr::Port(7711)),
        supernode: vec!["a:7700".into()],
        registry: BTreeMap::from([("docker.io".into(), "http://127.0.0.1:5600".into())]),
        slots: 8,
        seed: true,
    };
    assert_eq!(peer(&settings), Ok(expected));
    assert_eq!(peer(&Settings::empty()), Ok(Peer::default()));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_in_any_order() {
    let variables =
        || env(&[("LONGSHORE_PEER_QUOTA", "2GiB"), ("LONGSHORE_PEER_SLOTS", "2"), ("HOME", "/")]).into_iter();
    let mut settings = file("peer = { quota = '1GiB', slots = 1, data-dir = 'file' }");
    settings.set("peer", "quota", Value::from("3GiB"));
    settings.overlay_env(variables(), &SCHEMA).unwrap();

    let peer = peer(&settings).unwrap();
    assert_eq!((peer.quota, peer.slots, peer.data_dir), (ByteSize(3 << 30), 2, Some("file".into())));
}

#[test]
fn the_environment_can_say_all_that_the_file_can() {
    let mut settings = Settings::empty();
    let variables = [
        ("LONGSHORE_PEER_DATA_DIR", "/data"),
        ("LONGSHORE_PEER_SUPERNODE", "a:1, b:2"),
        ("LONGSHORE_PEER_REGISTRY", "docker.io=http://x/?a=b,ghcr.io=http://y"),
        ("LONGSHORE_PEER_SEED", "true"),
        ("LONGSHORE_PEER_PROXY_LISTEN", ":0"),
        ("LONGSHORE_PEER_QUOTA", ""),
    ];
    settings.overlay_env(env(&variables).into_iter(), &SCHEMA).unwrap();
    let peer = peer(&settings).unwrap();
    assert_eq!(peer.data_dir.as_deref(), Some("/data"));
    assert_eq!(peer.supernode, ["a:1", "b:2"]);
    assert_eq!(peer.registry["docker.io"], "http://x/?a=b");
    assert_eq!(peer.registry["ghcr.io"], "http://y");
    assert!(peer.seed);
    assert_eq!(peer.proxy_listen, ":0".parse().ok());
    assert_eq!(peer.quota, ByteSize::default());
}

#[test]
fn a_misspelt_name_is_an_error_that_names_the_nearest() {
    let cases = [
        ("[peer]\n\nqouta = 1", "unknown key `qouta` in [peer] (file x.toml line 3): did you mean `quota`?"),
        (
            "[peer]\ndata_dir = ''",
            "unknown key `data_dir` in [peer] (file x.toml line 2): did you mean `data-dir`?",
        ),
        (
            "[supernode]\nquota = 1",
            "unknown key `quota` in [supernode] (file x.toml line 2): it belongs under [peer]",
        ),
        ("[pear]", "unknown section [pear] (file x.toml line 1): did you mean [peer]?"),
        (
            "quota = 1",
            "key `quota` stands outside any section (file x.toml line 1): put it under a [section] line",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(refused_file(text), message);
    }
    assert_eq!(
        refused_env("LONGSHORE_PEER_QOUTA", "1"),
        "unknown environment variable LONGSHORE_PEER_QOUTA: did you mean LONGSHORE_PEER_QUOTA?"
    );
    assert_eq!(
        refused_env("LONGSHORE_QUOTA", "1"),
        "unknown environment variable LONGSHORE_QUOTA: did you mean LONGSHORE_PEER_QUOTA?"
    );
}

#[test]
fn a_wrong_value_is_an_error_that_shows_a_right_one_and_not_the_wrong() {
    let cases = [
        (
            "[peer]\nquota = 'lots'",
            "`quota` in [peer] (file x.toml line 2) must be a size in bytes, for example `quota = \"10GiB\"`",
        ),
        (
            "[peer]\nseed = 'yes'",
            "`seed` in [peer] (file x.toml line 2) must be true or false, for example `seed = true`",
        ),
        (
            "[peer]\nregistry = ['docker.io']",
            "`registry` in [peer] (file x.toml line 2) must be a table of names and texts, for example \
             `registry = { \"docker.io\" = \"http://127.0.0.1:5600\" }`",
        ),
        (
            "[peer]\nslots = 70000",
            "`slots` in [peer] (file x.toml line 2): invalid value: integer `70000`, expected u16, for example `slots = 8`",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(refused_file(text), message);
    }
    assert_eq!(
        refused_env("LONGSHORE_PEER_QUOTA", "s3cret"),
        "`quota` in [peer] (environment LONGSHORE_PEER_QUOTA) must be a size in bytes, for example \
         `LONGSHORE_PEER_QUOTA=10GiB`"
    );
    let mut settings = Settings::empty();
    settings.set("peer", "quota", Value::from("lots"));
    assert_eq!(
        peer(&settings).unwrap_err(),
        "`quota` in [peer] (flag --quota) must be a size in bytes, for example `--quota 10GiB`"
    );
}

#[test]
fn a_broken_file_is_said_with_its_line() {
    assert!(refused_file("[peer]\nquota =").starts_with("file x.toml line 2: "));
    assert!(refused_file("[peer]\nquota = 1\nquota = 2").contains("line 3"));
    let error = Settings::from_file(Path::new("/nowhere/x.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/x.toml");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn what_kubernetes_and_the_logging_set_is_passed_over() {
    let variables = [
        ("LONGSHORE_LOG", "debug"),
        ("LONGSHORE_IMAGE", "x"),
        ("LONGSHORE_TESTS_REQUIRE_ALL", "1"),
        ("LONGSHORE_SERVICE_HOST", "10.0.0.1"),
        ("LONGSHORE_SUPERNODE_SERVICE_HOST", "10.0.0.1"),
        ("LONGSHORE_SUPERNODE_SERVICE_PORT_HTTP", "7701"),
        ("LONGSHORE_SUPERNODE_PORT", "udp://10.0.0.1:7700"),
        ("LONGSHORE_SUPERNODE_PORT_7700_UDP", "udp://10.0.0.1:7700"),
        ("LONGSHORE_SUPERNODE_PORT_7701_TCP_ADDR", "10.0.0.1"),
    ];
    Settings::empty().overlay_env(env(&variables).into_iter(), &SCHEMA).unwrap();
    assert!(refused_env("LONGSHORE_IMAGES", "x").contains("did you mean"));
    assert!(refused_env("LONGSHORE_SUPERNODE_PORT", "7700").contains("did you mean"));
}

#[test]
fn debug_output_shows_no_values() {
    let settings = file("[peer]\nregistry = { x = 'https://ann:s3cret@x' }");
    assert!(!format!("{settings:?}").contains("s3cret"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "(\\PC|\n){0,200}", origin in "\\PC{0,20}") {
        let outcome = Settings::from_str(&text, &origin).and_then(|settings| settings.section::<Peer>("peer", &SCHEMA));
        if let Err(error) = outcome {
            prop_assert!(!error.to_string().contains(['\n', '\r']));
        }
    }

    #[test]
    fn anything_like_a_file_is_read_or_refused_in_one_line(
        lines in prop::collection::vec((
            "(quota|slots|seed|registry|supernode|grace|\"\\\\n\"|qouta|[a-z-]{1,9})",
            "(-?[0-9]{1,20}|[0-9.]{1,6}|true|'[^'\n]{0,9}'|\\['a', 1\\]|\\{ a = '=' \\}|nan|1979-05-27)",
        ), 0..9),
        section in "\\[(peer|supernode|pear|'\t'|peer\\.registry)\\]",
    ) {
        let body: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let outcome = Settings::from_str(&format!("{section}\n{body}"), "x.toml")
            .and_then(|settings| settings.section::<Peer>("peer", &SCHEMA));
        if let Err(error) = outcome {
            prop_assert!(!error.to_string().contains(['\n', '\r']));
        }
    }

    #[test]
    fn any_variable_is_read_or_refused_in_one_line(name in "(PEER_|SUPERNODE_)?(\\PC|\n){0,30}", value in "(\\PC|\n){0,30}") {
        let variables = [(format!("LONGSHORE_{name}"), value.clone()), ("LONGSHORE_PEER_GRACE".to_owned(), value)];
        if let Err(error) = Settings::empty().overlay_env(variables.into_iter(), &SCHEMA) {
            prop_assert!(!error.to_string().contains(['\n', '\r']));
        }
    }

    #[test]
    fn what_was_typed_comes_out_whichever_way_it_was_said(bytes: u64, slots: u16, seed: bool) {
        let quota = ByteSize(bytes);
        let mut said = Settings::empty();
        let variables = [("QUOTA", quota.to_string()), ("SLOTS", slots.to_string()), ("SEED", seed.to_string())];
        let variables = variables.map(|(key, value)| (format!("LONGSHORE_PEER_{key}"), value));
        said.overlay_env(variables.into_iter(), &SCHEMA).unwrap();
        let written = file(&format!("[peer]\nquota = '{quota}'\nslots = {slots}\nseed = {seed}"));
        prop_assert_eq!(peer(&said), Ok(Peer { quota, slots, seed, ..Peer::default() }));
        prop_assert_eq!(peer(&written), peer(&said));
    }
}
