//! `longshore setup`: points a container runtime at the peer, or back. What is changed is decided in
//! [`proxy::setup`]; this shows it.

use proxy::setup::{self, Change, Registry, Runtime, SetupError, Tree, Wish};
use serde_json::json;

use crate::cli::Setup;
use crate::usage;

/// Runs the command.
pub fn run(flags: Setup) -> anyhow::Result<()> {
    let tree = Tree::open(&flags.root).map_err(usage)?;
    let done = if flags.undo { undo(&tree, &flags) } else { set_up(&tree, &flags) };
    done.map_err(|error| if error.is_usage() { usage(error) } else { error.into() })
}

/// What is told in the end.
struct Report<'a> {
    changes: Vec<Change>,
    warnings: &'a [String],
    /// In a sentence, where nothing is to be changed.
    idle: String,
    /// What the changes are called, as in "changed /etc/x".
    verb: &'static str,
}

fn set_up(tree: &Tree, flags: &Setup) -> Result<(), SetupError> {
    let runtime: Runtime = flags.runtime.into();
    let mut registries = flags.registry.clone();
    if registries.is_empty() {
        registries.extend(Registry::HUB.parse::<Registry>());
    }
    let wish = Wish { proxy: flags.proxy.clone(), registries, replace_mirrors: flags.replace_mirrors };
    let plan = setup::plan(tree, runtime, &wish)?;
    let report = Report {
        changes: plan.changes(tree),
        warnings: &plan.warnings,
        idle: format!("{} is set up already: nothing to change", runtime.name()),
        verb: "changed",
    };
    if !flags.dry_run {
        setup::carry_out(tree, runtime, &wish, &plan)?;
    }
    tell(&report, flags);
    Ok(())
}

fn undo(tree: &Tree, flags: &Setup) -> Result<(), SetupError> {
    let runtime: Runtime = flags.runtime.into();
    let changes = setup::undo_changes(tree, runtime, flags.force)?;
    let idle = match &changes {
        Some(_) => "all is as it was before setup: nothing to change",
        None => "nothing was set up here: nothing to undo",
    };
    let report =
        Report { changes: changes.unwrap_or_default(), warnings: &[], idle: idle.into(), verb: "restored" };
    if !flags.dry_run {
        setup::undo(tree, runtime, flags.force)?;
    }
    tell(&report, flags);
    Ok(())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the command's answer")]
fn tell(report: &Report<'_>, flags: &Setup) {
    let runtime = Runtime::from(flags.runtime);
    let then = runtime.reload(&report.changes);
    if flags.json {
        let change = |change: &Change| json!({ "path": change.path, "diff": change.diff });
        let files: Vec<_> = report.changes.iter().map(change).collect();
        let answer = json!({
            "runtime": runtime.name(), "dry_run": flags.dry_run, "undo": flags.undo,
            "changed": !flags.dry_run && !files.is_empty(), "files": files, "warnings": report.warnings, "then": then,
        });
        println!("{answer}");
        return;
    }
    for warning in report.warnings {
        eprintln!("note: {warning}");
    }
    if report.changes.is_empty() {
        eprintln!("{}", report.idle);
    } else if flags.dry_run {
        report.changes.iter().for_each(|change| print!("{}", change.diff));
    } else {
        report.changes.iter().for_each(|change| println!("{} {}", report.verb, change.path.display()));
        match then {
            Some(then) => println!("now run: {then}"),
            None => println!("it is in force from the next pull on"),
        }
    }
}
