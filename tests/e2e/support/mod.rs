//! What every end-to-end test stands on: child processes that never outlive their test, a cluster of real
//! daemons, real registries and runtimes, made-up images, and an origin that misbehaves on demand.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

pub(crate) mod browser;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod cluster;
#[cfg(feature = "otlp")]
pub(crate) mod collector;
pub(crate) mod disk;
pub(crate) mod faulty;
pub(crate) mod image;
pub(crate) mod kubernetes;
pub(crate) mod nginx;
pub(crate) mod process;
pub(crate) mod redirecting;
pub(crate) mod registry;
pub(crate) mod runtimes;
pub(crate) mod tls;
pub(crate) mod tokens;

/// How long a condition may take to come true. Far beyond what any of them needs: it only ends tests that hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(150);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

static MACHINE: Mutex<()> = Mutex::const_new(());

/// Tests that move hundreds of megabytes hold this, so that two of them never share the machine.
pub(crate) async fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// Waits until `look` finds something; panics with `what` when [`LIMIT`] has passed.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let find = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(LIMIT, find).await {
        Ok(found) => found,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

/// What `tests/run` builds because no distribution has it.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");

/// Where `program` is: among the built tools, or on the search path.
pub(crate) fn program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let homes = std::iter::once(PathBuf::from(TOOLS)).chain(std::env::split_paths(&path));
    homes.map(|home| home.join(program)).find(|file| file.is_file())
}

/// Leaves the test, with a line that says so, unless every named part is here: a program, or `root`.
macro_rules! need {
    ($($part:literal),+ $(,)?) => {{
        fn here() {}
        if !$crate::support::have(std::any::type_name_of_val(&here), &[$($part),+]) {
            return;
        }
    }};
}
pub(crate) use need;

/// Whether all `parts` are here; says which is not. What [`need!`] calls.
pub(crate) fn have(here: &str, parts: &[&str]) -> bool {
    let missing = parts.iter().find(|part| match **part {
        "root" => !rustix::process::geteuid().is_root(),
        part => program(part).is_none(),
    });
    let Some(missing) = missing else { return true };
    let test = here.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let test = test.strip_prefix("e2e::").unwrap_or(test);
    let all = std::env::var("LONGSHORE_TESTS_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!all, "{test}: {missing} is missing, and LONGSHORE_TESTS_REQUIRE_ALL=1 allows no skips");
    // Past the test framework, which would keep the line to itself when the test passes.
    let _ = writeln!(std::io::stdout(), "\nskipped: {test}: {missing} is missing");
    false
}

/// Every regular file below `root`.
pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
