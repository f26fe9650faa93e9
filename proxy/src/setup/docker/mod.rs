//! Docker: its daemon's settings name mirrors of Docker Hub, and of nothing else. Called by the planner above.

pub(crate) mod daemon_json;

use super::{Look, Plan, Proxy, Registry, SetupError, Tree, Wish};

/// The daemon's settings.
const SETTINGS: &str = "/etc/docker/daemon.json";
/// Mirrors are among what docker reads again without a restart.
pub(super) const RELOAD: &str = "systemctl reload docker";

pub(super) fn plan(tree: &Tree, wish: &Wish, plan: &mut Plan) -> Result<(), SetupError> {
    let others: Vec<&str> =
        wish.registries.iter().filter(|name| !name.is_hub()).map(Registry::as_str).collect();
    if !others.is_empty() {
        return Err(SetupError::HubOnly { names: others.join(", ") });
    }
    let text = tree.read(SETTINGS)?.map(|file| file.text).unwrap_or_default();
    let changed = daemon_json::with_mirror(&text, wish.proxy.url()).map_err(|why| refused(tree, why))?;
    plan.set(tree, SETTINGS, changed)
}

pub(super) fn inspect(tree: &Tree, proxy: &Proxy) -> Result<Look, SetupError> {
    let mut look = Look::default();
    let text = tree.read(SETTINGS)?.map(|file| file.text).unwrap_or_default();
    match daemon_json::mirrors(&text) {
        Ok(mirrors) => {
            mirrors.iter().for_each(|mirror| look.mirror(mirror));
            let named = mirrors.iter().any(|mirror| proxy.is(mirror));
            look.registries.extend(named.then(|| Registry::HUB.to_owned()));
            if !named {
                let what = format!("registry-mirrors in {SETTINGS} lacks {proxy}: pulls go past Longshore");
                look.flaw(what, format!("longshore setup docker --proxy {proxy}, then {RELOAD}"));
            } else if !mirrors.first().is_some_and(|first| proxy.is(first)) {
                let what = format!("registry-mirrors in {SETTINGS} has another mirror before {proxy}");
                look.flaw(what, format!("longshore setup docker --proxy {proxy}, then {RELOAD}"));
            }
        }
        Err(why) => look.fatal(format!("{SETTINGS}: {why}"), "correct it; docker does not start so"),
    }
    Ok(look)
}

fn refused(tree: &Tree, why: String) -> SetupError {
    match tree.resolve(SETTINGS) {
        Ok(spot) => SetupError::refused(tree.shown(&spot), why),
        Err(error) => error,
    }
}
