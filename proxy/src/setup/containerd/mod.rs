//! containerd: which of its files are in force, where it looks hosts up, and a `hosts.toml` for each registry. Called by
//! the planner above.
//!
//! What its releases do differently, as far as it matters here:
//! - 1.x takes a plugin's section from the last file that has one, whole; 2.x merges sections key by key. So the key
//!   goes into that last file, where both see it.
//! - 1.x looks nothing up until `config_path` is set. 2.x has a default of two directories, and from 2.1 on takes such
//!   a list for the name of one, which is not there: all hosts are passed over, without a word. So one is set.
//! - All refuse to start the CRI plugin with `config_path` beside mirror tables of the old kind.

pub(crate) mod config;
pub(crate) mod hosts;
mod settings;

use std::collections::BTreeMap;

use config::OldMirror;
use hosts::{Certificates, Mirror};
use settings::{DROP_INS, MAIN, Settings};

use super::{Look, Plan, Proxy, Registry, SetupError, Tree, Wish};

/// Where hosts are looked up by custom, and by nerdctl.
const HOSTS: &str = "/etc/containerd/certs.d";
/// Where docker keeps certificates, and containerd 2 looks, too.
const DOCKER_HOSTS: &str = "/etc/docker/certs.d";
/// The directory of hosts for registries that have none of their own.
const DEFAULT: &str = "_default";
pub(super) const RESTART: &str = "systemctl restart containerd";

pub(super) fn plan(tree: &Tree, wish: &Wish, plan: &mut Plan) -> Result<(), SetupError> {
    let mut settings = Settings::load(tree)?;
    let (dir, old) = if settings.is_off() {
        plan.warn(
            "containerd's CRI plugin is turned off (disabled_plugins), so its settings stay as they are: nerdctl finds \
             the mirror by itself, ctr with --hosts-dir /etc/containerd/certs.d",
        );
        (HOSTS.to_owned(), BTreeMap::new())
    } else {
        set_config_path(tree, wish, plan, &mut settings)?
    };
    let star = old.get("*").map(mirrors_of).unwrap_or_default();
    for registry in &wish.registries {
        let mirrors = old.get(registry.as_str()).map_or_else(|| star.clone(), mirrors_of);
        set_hosts(tree, plan, &dir, registry, &mirrors, Some(&wish.proxy))?;
    }
    for (name, mirror) in &old {
        if name == "*" {
            set_default(tree, plan, &dir, &star)?;
        } else if let Ok(registry) = name.parse::<Registry>() {
            if !wish.registries.contains(&registry) {
                set_hosts(tree, plan, &dir, &registry, &mirrors_of(mirror), None)?;
            }
        } else {
            let why = format!("its mirror table for {name:?} names no registry; remove it first");
            return Err(refused(tree, MAIN, why));
        }
    }
    Ok(())
}

/// Sees to it that containerd looks hosts up in one directory; gives that, and the mirrors that are to move there.
fn set_config_path(
    tree: &Tree,
    wish: &Wish,
    plan: &mut Plan,
    settings: &mut Settings,
) -> Result<(String, BTreeMap<String, OldMirror>), SetupError> {
    movable(tree, settings, wish.replace_mirrors)?;
    let old = settings.mirrors();
    let dirs = settings.config_path();
    let dir = one_of(tree, plan, &dirs)?;
    let at = settings.in_force();
    let mut changed = vec![];
    if dirs.len() != 1 || settings.files[at].1.config_path() != Some(dir.as_str()) {
        let (path, config) = &mut settings.files[at];
        config.set_config_path(&dir).map_err(|why| refused(tree, path, why))?;
        changed.push(at);
    }
    if !old.is_empty() {
        for (index, (_, config)) in settings.files.iter_mut().enumerate() {
            if !config.mirrors().is_empty() {
                config.remove_mirrors();
                changed.push(index);
            }
        }
    }
    if settings.made && settings.files.len() > 1 {
        // Releases before 2.2 read none of these without a main file.
        changed.push(0);
        plan.warn(format!(
            "there is no {MAIN}: it is made, and imports {DROP_INS}, as containerd 2.2 does by default"
        ));
    }
    changed.sort_unstable();
    changed.dedup();
    for index in changed {
        let (path, config) = &settings.files[index];
        plan.set(tree, path, config.text())?;
    }
    if settings.files.iter().any(|(_, config)| config.discards_layers()) {
        plan.warn(
            "discard_unpacked_layers is true: containerd keeps no compressed layers, so what it pulled before cannot be \
             handed to other nodes; set it to false",
        );
    }
    Ok((dir, old))
}

/// Refuses what cannot be moved to host files, or may not without the user's word.
fn movable(tree: &Tree, settings: &Settings, replace: bool) -> Result<(), SetupError> {
    if let Some((path, host)) = settings.with_tls() {
        let why = format!(
            "registry.configs.{host:?}.tls excludes config_path: move its ca, client or skip_verify to \
             {HOSTS}/{host}/hosts.toml, and remove the table"
        );
        return Err(refused(tree, path, why));
    }
    let Some(path) = settings.with_mirrors() else { return Ok(()) };
    let mirrors = settings.mirrors();
    let names: Vec<&str> = mirrors.keys().map(String::as_str).collect();
    if !replace {
        let why = format!(
            "registry.mirrors (for {}) excludes config_path, and containerd pulls nothing with both: say \
             --replace-mirrors to have these tables turned into hosts.toml files",
            names.join(", ")
        );
        return Err(refused(tree, path, why));
    }
    match mirrors.values().find(|mirror| mirror.more) {
        Some(odd) => {
            let why = format!("registry.mirrors.{:?} says more than endpoint; move it by hand", odd.registry);
            Err(refused(tree, path, why))
        }
        None => Ok(()),
    }
}

/// The one directory in which hosts are to be looked up.
fn one_of(tree: &Tree, plan: &mut Plan, dirs: &[String]) -> Result<String, SetupError> {
    let chosen = dirs.iter().find(|dir| tree.has_dir(dir)).or(dirs.first()).map_or(HOSTS, String::as_str);
    let left = |dir: &str| -> Result<Vec<String>, SetupError> {
        Ok(tree.list(dir)?.into_iter().filter(|name| !tree.has(format!("{chosen}/{name}"))).collect())
    };
    if dirs.is_empty() && chosen != DOCKER_HOSTS {
        let passed = left(DOCKER_HOSTS)?;
        if !passed.is_empty() {
            plan.warn(format!(
                "{DOCKER_HOSTS} has {}; containerd 2.0 looks there by default, and not with config_path set: copy to \
                 {chosen} what containerd needs of it",
                passed.join(", ")
            ));
        }
    }
    if dirs.len() > 1 {
        for dir in dirs.iter().filter(|dir| *dir != chosen) {
            let passed = left(dir)?;
            if !passed.is_empty() {
                let why = format!(
                    "config_path names several directories, which containerd 2.1 and later cannot read: move {} from \
                     {dir} to {chosen}, then run this again",
                    passed.join(", ")
                );
                return Err(refused(tree, dir, why));
            }
        }
        plan.warn(format!(
            "config_path named several directories ({}), and containerd 2.1 and later then reads none of them: it names \
             {chosen} alone now",
            dirs.join(":")
        ));
    }
    Ok(chosen.to_owned())
}

/// Writes one registry's hosts: all that were there, and the proxy before them.
fn set_hosts(
    tree: &Tree,
    plan: &mut Plan,
    dir: &str,
    registry: &Registry,
    mirrors: &[Mirror],
    proxy: Option<&Proxy>,
) -> Result<(), SetupError> {
    let home = host_dir(tree, dir, registry);
    let path = format!("{home}/hosts.toml");
    let there = tree.read(&path)?.map(|file| file.text).filter(|text| !text.trim().is_empty());
    let text = match there {
        Some(text) => Ok(text),
        None if tree.has_dir(&home) => {
            Ok(hosts::new(registry.server().as_deref(), &certificates(tree, &home, "")?))
        }
        None => match tree.read(format!("{dir}/{DEFAULT}/hosts.toml"))? {
            Some(default) => hosts::moved(&default.text, DEFAULT),
            None => {
                let shared = certificates(tree, &format!("{dir}/{DEFAULT}"), &format!("../{DEFAULT}/"))?;
                Ok(hosts::new(registry.server().as_deref(), &shared))
            }
        },
    };
    let text =
        text.and_then(|text| if mirrors.is_empty() { Ok(text) } else { hosts::with_more(&text, mirrors) });
    let text = text.and_then(|text| match proxy {
        Some(proxy) => hosts::with_first(&text, proxy.url()),
        None => Ok(text),
    });
    plan.set(tree, &path, text.map_err(|why| refused(tree, &path, why))?)
}

/// Writes the hosts of registries that have none of their own.
fn set_default(tree: &Tree, plan: &mut Plan, dir: &str, mirrors: &[Mirror]) -> Result<(), SetupError> {
    let path = format!("{dir}/{DEFAULT}/hosts.toml");
    let text = tree.read(&path)?.map(|file| file.text).unwrap_or_default();
    let text = hosts::with_more(&text, mirrors).map_err(|why| refused(tree, &path, why))?;
    plan.set(tree, &path, text)
}

/// The directory of a registry's hosts. One with a port may be written in two ways, of which containerd takes the first.
fn host_dir(tree: &Tree, dir: &str, registry: &Registry) -> String {
    let plain = format!("{dir}/{registry}");
    match registry.as_str().rsplit_once(':') {
        Some((host, port)) => {
            let spelled = format!("{dir}/{host}_{port}_");
            if tree.has_dir(&spelled) { spelled } else { plain }
        }
        None => plain,
    }
}

/// The certificates in a directory, by the ends of their names, as containerd finds them where there is no `hosts.toml`.
fn certificates(tree: &Tree, dir: &str, lead: &str) -> Result<Certificates, SetupError> {
    let names = tree.list(dir)?;
    let mut found = Certificates::default();
    for name in &names {
        if name.ends_with(".crt") {
            found.ca.push(format!("{lead}{name}"));
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            let key = names.contains(&key).then(|| format!("{lead}{key}"));
            found.client.push((format!("{lead}{name}"), key));
        }
    }
    Ok(found)
}

fn mirrors_of(old: &OldMirror) -> Vec<Mirror> {
    let mirror = |url: &String| {
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        Mirror { url: url.trim_end_matches('/').into(), whole_path: !path.trim_matches('/').is_empty() }
    };
    old.endpoints.iter().map(mirror).collect()
}

fn refused(tree: &Tree, path: &str, why: impl Into<String>) -> SetupError {
    match tree.resolve(path) {
        Ok(spot) => SetupError::refused(tree.shown(&spot), why),
        Err(error) => error,
    }
}

pub(super) fn inspect(tree: &Tree, proxy: &Proxy) -> Result<Look, SetupError> {
    let mut look = Look::default();
    let settings = Settings::load(tree)?;
    let setup = format!("longshore setup containerd --proxy {proxy}");
    let mut dirs = settings.config_path();
    if settings.is_off() {
        look.idle = true;
        dirs = vec![HOSTS.into()];
    } else {
        inspect_settings(&mut look, &settings, &dirs, &setup);
    }
    let mut named = false;
    for dir in &dirs {
        for name in tree.list(dir)? {
            let path = format!("{dir}/{name}/hosts.toml");
            let Some(file) = tree.read(&path)? else { continue };
            match hosts::urls(&file.text) {
                Ok(urls) => {
                    urls.iter().for_each(|url| look.mirror(url));
                    if let Some(at) = urls.iter().position(|url| proxy.is(url)) {
                        named = true;
                        look.registries.push(name);
                        if at > 0 {
                            look.flaw(format!("{path} has another host before {proxy}"), &setup);
                        }
                    }
                }
                Err(why) => look.flaw(format!("{path}: {why}"), "correct it"),
            }
        }
    }
    if !named && !dirs.is_empty() {
        let what = format!("no hosts.toml below {} names {proxy}: pulls go past Longshore", dirs.join(", "));
        look.flaw(what, setup);
    }
    Ok(look)
}

/// What the settings themselves put in the way.
fn inspect_settings(look: &mut Look, settings: &Settings, dirs: &[String], setup: &str) {
    let restart = format!("{setup}, then {RESTART}");
    if let Some(path) = settings.with_mirrors() {
        let mend = format!("{setup} --replace-mirrors, then {RESTART}");
        if dirs.is_empty() {
            let what =
                format!("registry.mirrors in {path} excludes config_path, and with it the way to Longshore");
            look.flaw(what, mend);
        } else {
            let what = format!(
                "registry.mirrors in {path} is beside config_path: containerd pulls nothing with both"
            );
            look.fatal(what, mend);
        }
    }
    if let Some((path, host)) = settings.with_tls() {
        let what = format!("registry.configs.{host:?}.tls in {path} excludes config_path");
        look.flaw(what, format!("move it to {HOSTS}/{host}/hosts.toml, then {setup}"));
    }
    match dirs.len() {
        0 => {
            let path = &settings.files[settings.in_force()].0;
            look.flaw(format!("config_path is not set in {path}: containerd reads no hosts.toml"), &restart);
        }
        1 => {}
        _ => {
            let what = format!(
                "config_path names several directories ({}): containerd 2.1 and later reads none of them",
                dirs.join(":")
            );
            look.flaw(what, &restart);
        }
    }
    if let Some((path, _)) = settings.files.iter().find(|(_, config)| config.discards_layers()) {
        let what =
            format!("discard_unpacked_layers is true in {path}: containerd keeps no layers to hand on");
        look.flaw(what, format!("set it to false, then {RESTART}"));
    }
}
