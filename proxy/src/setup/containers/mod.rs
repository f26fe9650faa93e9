//! Podman, buildah, skopeo and CRI-O: a drop-in of their own for `registries.conf`. They say nothing about the registry
//! that a mirror is asked for, so the mirror's location does: `127.0.0.1:7711/ghcr.io`. Called by the planner above.

pub(crate) mod registries;

use registries::Registries;

use super::{Look, Plan, Proxy, Runtime, SetupError, Tree, Wish};

/// The main file.
const MAIN: &str = "/etc/containers/registries.conf";
/// What is read after it, in the order of names.
const DIR: &str = "/etc/containers/registries.conf.d";
/// The one that setup makes.
const OURS: &str = "50-longshore.conf";
pub(super) const RELOAD: &str = "systemctl reload crio";

/// A file, with the path that it is at.
type Read = (String, Registries);

pub(super) fn plan(tree: &Tree, wish: &Wish, plan: &mut Plan) -> Result<(), SetupError> {
    let (before, ours, after) = load(tree)?;
    if let Some((path, _)) = before.iter().chain(&ours).chain(&after).find(|(_, file)| file.is_old()) {
        let why = "it is of version 1 ([registries.search] and the like), beside which no mirror can be set: turn it into \
                   version 2 first (unqualified-search-registries = [...] and [[registry]] tables)";
        return Err(refused(tree, path, why));
    }
    let path = format!("{DIR}/{OURS}");
    let mut text = tree.read(&path)?.map(|file| file.text).unwrap_or_default();
    let mut ours = ours;
    for registry in &wish.registries {
        let name = registry.as_str();
        if let Some((later, _)) = after.iter().find(|(_, file)| file.entry(name).is_some()) {
            let why = format!(
                "it speaks of {name} and is read after {OURS}: rename it to 10-… so that it is read before"
            );
            return Err(refused(tree, later, why));
        }
        let known = ours.iter().chain(before.iter().rev()).find_map(|(_, file)| file.entry(name));
        let entry = known.unwrap_or_else(|| registries::plain(name));
        if entry.is_blocked() {
            plan.warn(format!(
                "{name} is blocked in these settings, and stays so: nothing is pulled from it"
            ));
        }
        let below = format!("{name}/");
        for (path, file) in before.iter().chain(&after) {
            for more in file.entries().iter().filter(|entry| entry.prefix().starts_with(&below)) {
                plan.warn(format!("{path} says its own about {}: that goes past the proxy", more.prefix()));
            }
        }
        let is_done = ours
            .first()
            .is_some_and(|(_, file)| file.entry(name).is_some_and(|it| it.goes_through(&wish.proxy)));
        if !is_done {
            text = registries::with_entry(&text, &entry, &wish.proxy)
                .map_err(|why| refused(tree, &path, why))?;
            let file = Registries::parse(&text).map_err(|why| refused(tree, &path, why))?;
            ours = vec![(path.clone(), file)];
        }
    }
    plan.set(tree, &path, text)
}

/// The files that are read before setup's own, that one if it is there, and those that come after.
fn load(tree: &Tree) -> Result<(Vec<Read>, Vec<Read>, Vec<Read>), SetupError> {
    let (mut before, mut ours, mut after) = (vec![], vec![], vec![]);
    let dir = tree.list(DIR)?;
    let drop_ins = dir.iter().filter(|name| name.ends_with(".conf"));
    let paths = drop_ins.map(|name| (name.as_str(), format!("{DIR}/{name}")));
    for (name, path) in std::iter::once(("", MAIN.to_owned())).chain(paths) {
        let Some(file) = tree.read(&path)? else { continue };
        let file = Registries::parse(&file.text).map_err(|why| refused(tree, &path, why))?;
        let list = match name.cmp(OURS) {
            std::cmp::Ordering::Less => &mut before,
            std::cmp::Ordering::Equal => &mut ours,
            std::cmp::Ordering::Greater => &mut after,
        };
        list.push((path, file));
    }
    Ok((before, ours, after))
}

fn refused(tree: &Tree, path: &str, why: impl Into<String>) -> SetupError {
    match tree.resolve(path) {
        Ok(spot) => SetupError::refused(tree.shown(&spot), why),
        Err(error) => error,
    }
}

pub(super) fn inspect(tree: &Tree, runtime: Runtime, proxy: &Proxy) -> Result<Look, SetupError> {
    let mut look = Look::default();
    let (before, ours, after) = load(tree)?;
    let files = || before.iter().chain(&ours).chain(&after);
    let setup = format!("longshore setup {} --proxy {proxy}", runtime.name());
    if let Some((path, _)) = files().find(|(_, file)| file.is_old()) {
        let what = format!("{path} is of version 1, beside which no mirror can be set");
        look.flaw(what, format!("turn it into version 2, then {setup}"));
        return Ok(look);
    }
    let mut named = false;
    for entry in files().flat_map(|(_, file)| file.entries()) {
        let in_force = files().filter_map(|(_, file)| file.entry(entry.prefix())).last();
        let Some(entry) = in_force else { continue };
        entry.mirrors().iter().for_each(|mirror| look.mirror(mirror));
        if entry.mirrors().contains(&entry.through(proxy))
            && !look.registries.iter().any(|known| known == entry.prefix())
        {
            named = true;
            look.registries.push(entry.prefix().into());
            if !entry.goes_through(proxy) {
                look.flaw(format!("{} has another mirror before {proxy}", entry.prefix()), &setup);
            }
        }
    }
    if !named {
        look.flaw(format!("no [[registry]] below {DIR} names {proxy}: pulls go past Longshore"), setup);
    }
    Ok(look)
}
