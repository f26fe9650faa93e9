//! Podman, buildah, skopeo and CRI-O: a drop-in of their own for `registries.conf`. They say nothing about the registry
//! that a mirror is asked for, so the mirror's location does: `127.0.0.1:7711/ghcr.io`. Called by the planner above.

pub(crate) mod registries;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use registries::{Entry, Registries};

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

/// All files, in the order in which they are read.
struct Files {
    before: Vec<Read>,
    /// Setup's own, if it is there.
    ours: Option<Read>,
    after: Vec<Read>,
}

// === impl Files ===

impl Files {
    fn load(tree: &Tree) -> Result<Self, SetupError> {
        let mut files = Self { before: vec![], ours: None, after: vec![] };
        let dir = tree.list(DIR)?;
        let drop_ins = dir.iter().filter(|name| name.ends_with(".conf"));
        let paths = drop_ins.map(|name| (name.as_str(), format!("{DIR}/{name}")));
        for (name, path) in std::iter::once(("", MAIN.to_owned())).chain(paths) {
            let Some(file) = tree.read(&path)? else { continue };
            let file = Registries::parse(&file.text).map_err(|why| refused(tree, &path, why))?;
            match name.cmp(OURS) {
                Ordering::Less => files.before.push((path, file)),
                Ordering::Equal => files.ours = Some((path, file)),
                Ordering::Greater => files.after.push((path, file)),
            }
        }
        Ok(files)
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = &Read> {
        self.before.iter().chain(&self.ours).chain(&self.after)
    }

    /// What holds for a registry: the last word on it.
    fn entry(&self, registry: &str) -> Option<Entry> {
        self.all().rev().find_map(|(_, file)| file.entry(registry))
    }

    /// The first file of the old form.
    fn old(&self) -> Option<&str> {
        self.all().find(|(_, file)| file.is_old()).map(|(path, _)| path.as_str())
    }
}

pub(super) fn plan(tree: &Tree, wish: &Wish, plan: &mut Plan) -> Result<(), SetupError> {
    let mut files = Files::load(tree)?;
    if let Some(path) = files.old() {
        let why = "it is of version 1 ([registries.search] and the like), beside which no mirror can be set: turn it into \
                   version 2 first (unqualified-search-registries = [...] and [[registry]] tables)";
        return Err(refused(tree, path, why));
    }
    let path = format!("{DIR}/{OURS}");
    let mut text = tree.read(&path)?.map(|file| file.text).unwrap_or_default();
    for registry in &wish.registries {
        let name = registry.as_str();
        if let Some((later, _)) = files.after.iter().find(|(_, file)| file.entry(name).is_some()) {
            let why = format!(
                "it speaks of {name} and is read after {OURS}: rename it to 10-… so that it is read before"
            );
            return Err(refused(tree, later, why));
        }
        let entry = files.entry(name).unwrap_or_else(|| registries::plain(name));
        warn(plan, &files, name, &entry);
        let own = files.ours.as_ref().and_then(|(_, file)| file.entry(name));
        if !own.is_some_and(|own| own.goes_through(&wish.proxy)) {
            let changed = registries::with_entry(&text, &entry, &wish.proxy);
            let read = changed.and_then(|changed| Ok((Registries::parse(&changed)?, changed)));
            let (file, changed) = read.map_err(|why| refused(tree, &path, why))?;
            (text, files.ours) = (changed, Some((path.clone(), file)));
        }
    }
    plan.set(tree, &path, text)
}

/// Tells what keeps images of a registry from coming through the proxy.
fn warn(plan: &mut Plan, files: &Files, name: &str, entry: &Entry) {
    if entry.is_blocked() {
        plan.warn(format!("{name} is blocked in these settings, and stays so: nothing is pulled from it"));
    }
    let below = format!("{name}/");
    for (path, file) in files.all() {
        for more in file.entries().iter().filter(|entry| entry.prefix().starts_with(&below)) {
            plan.warn(format!("{path} says its own about {}: that goes past the proxy", more.prefix()));
        }
    }
}

fn refused(tree: &Tree, path: &str, why: impl Into<String>) -> SetupError {
    match tree.resolve(path) {
        Ok(spot) => SetupError::refused(tree.shown(&spot), why),
        Err(error) => error,
    }
}

pub(super) fn inspect(tree: &Tree, runtime: Runtime, proxy: &Proxy) -> Result<Look, SetupError> {
    let mut look = Look::default();
    let files = Files::load(tree)?;
    let setup = format!("longshore setup {} --proxy {proxy}", runtime.name());
    if let Some(path) = files.old() {
        let what = format!("{path} is of version 1, beside which no mirror can be set");
        look.flaw(what, format!("turn it into version 2, then {setup}"));
        return Ok(look);
    }
    let names: BTreeSet<String> =
        files.all().flat_map(|(_, file)| file.entries()).map(|entry| entry.prefix().to_owned()).collect();
    for name in names {
        let Some(entry) = files.entry(&name) else { continue };
        entry.mirrors().iter().for_each(|mirror| look.mirror(mirror));
        if entry.mirrors().contains(&entry.through(proxy)) {
            if !entry.goes_through(proxy) {
                look.flaw(format!("{name} has another mirror before {proxy}"), &setup);
            }
            look.registries.push(name);
        }
    }
    if look.registries.is_empty() {
        look.flaw(format!("no [[registry]] below {DIR} names {proxy}: pulls go past Longshore"), setup);
    }
    Ok(look)
}
