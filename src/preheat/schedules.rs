//! `longshore preheat --schedule`, `--follow`, and `longshore preheats schedules`: what begins jobs by itself.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the command's answer")]

use hyper::Method;
use supernode::preheat;
use supernode::schedules::{Held, Reason, RunResult, Spec, View};
use time::format_description::well_known::Rfc3339;

use super::{daemon, show};
use crate::cli;
use crate::local::Daemon;

/// Where they are.
const ROOT: &str = "/preheat-schedules";

/// Makes one.
pub(super) async fn make(
    daemon: &mut Daemon,
    job: preheat::Spec,
    flags: &cli::Preheat,
    headers: &[(&'static str, &str)],
) -> anyhow::Result<()> {
    let spec = Spec {
        preheat: job,
        schedule: flags.schedule.clone(),
        time_zone: flags.time_zone.clone(),
        follow_seconds: flags.follow.map(|every| every.0.as_secs()),
        paused: false,
    };
    spec.check().map_err(crate::usage)?;
    let view: View = daemon.send(Method::POST, ROOT, headers, serde_json::to_vec(&spec)?).await?;
    if view.credentials == Held::Memory {
        eprintln!(
            "its login is in the supernode's memory only and goes with a restart: one in `supernode --registry-logins` stays"
        );
    }
    if flags.json {
        return show::print(&view);
    }
    println!("schedule {}: {}", view.id, line(&view));
    Ok(())
}

/// `longshore preheats schedules`.
pub(super) async fn run(flags: cli::Schedules) -> anyhow::Result<()> {
    let change = async |schedule: cli::Schedule, deed: &str| {
        let path = format!("{ROOT}/{}/{deed}", schedule.id);
        one(&daemon(&schedule.at).await?.send(Method::POST, &path, &[], Vec::new()).await?, schedule.json)
    };
    match flags.deed {
        None => {
            let views = daemon(&flags.at).await?.json(ROOT).await?;
            all(&serde_json::from_value::<Vec<View>>(views)?, flags.json)
        }
        Some(cli::ScheduleDeed::Show(schedule)) => {
            let view = daemon(&schedule.at).await?.json(&format!("{ROOT}/{}", schedule.id)).await?;
            one(&serde_json::from_value(view)?, schedule.json)
        }
        Some(cli::ScheduleDeed::Run(schedule)) => change(schedule, "run").await,
        Some(cli::ScheduleDeed::Pause(schedule)) => change(schedule, "pause").await,
        Some(cli::ScheduleDeed::Resume(schedule)) => change(schedule, "resume").await,
        Some(cli::ScheduleDeed::Remove(schedule)) => {
            let path = format!("{ROOT}/{}", schedule.id);
            daemon(&schedule.at).await?.ask(Method::DELETE, &path, Vec::new()).await?;
            Ok(())
        }
    }
}

/// All of them, a line each.
fn all(views: &[View], json: bool) -> anyhow::Result<()> {
    if json {
        return show::print(&views);
    }
    if views.is_empty() {
        println!("there are no preheat schedules");
        return Ok(());
    }
    println!("{:>8}  {:<24}  {:<20}  {:<18}  WHAT", "SCHEDULE", "WHEN", "NEXT", "LAST RUN");
    for view in views {
        println!(
            "{:>8}  {:<24}  {:<20}  {:<18}  {} to {}",
            view.id,
            when(view),
            next(view),
            view.runs.first().map_or_else(|| "none yet".to_owned(), |run| result(run.result).to_owned()),
            show::named(&view.spec.preheat),
            show::target(view.spec.preheat.to),
        );
    }
    Ok(())
}

/// One with its last runs.
fn one(view: &View, json: bool) -> anyhow::Result<()> {
    if json {
        return show::print(view);
    }
    println!("schedule {}: {}", view.id, line(view));
    view.digest.iter().for_each(|digest| println!("the tag meant {digest} when it was last brought"));
    view.message.iter().for_each(|message| println!("{message}"));
    if view.credentials == Held::Forgotten {
        println!(
            "its login went with a restart of the supernode: make it again, or give the supernode one (--registry-logins)"
        );
    }
    if view.runs.is_empty() {
        return Ok(());
    }
    println!("\n{:<20}  {:<7}  {:<10}  {:>6}  MESSAGE", "BEGUN", "WHY", "RESULT", "JOB");
    for run in &view.runs {
        println!(
            "{:<20}  {:<7}  {:<10}  {:>6}  {}",
            date(run.at),
            reason(run.reason),
            result(run.result),
            run.job.map(|job| job.to_string()).unwrap_or_default(),
            run.message.as_deref().unwrap_or_default(),
        );
    }
    Ok(())
}

fn line(view: &View) -> String {
    let (what, to) = (show::named(&view.spec.preheat), show::target(view.spec.preheat.to));
    format!("{what} to {to}, {}, next {}", when(view), next(view))
}

fn when(view: &View) -> String {
    match (&view.spec.schedule, view.spec.follow_seconds) {
        (Some(line), _) => format!("{line} {}", view.spec.time_zone.as_deref().unwrap_or("UTC")),
        (None, seconds) => format!("follows, every {} s", seconds.unwrap_or_default()),
    }
}

fn next(view: &View) -> String {
    match (view.spec.paused, view.next_at) {
        (true, _) => "paused".to_owned(),
        (false, Some(at)) => date(at),
        (false, None) => "now".to_owned(),
    }
}

fn date(at: time::OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Due => "due",
        Reason::Missed => "missed",
        Reason::Moved => "moved",
        Reason::Asked => "asked",
    }
}

fn result(result: RunResult) -> &'static str {
    match result {
        RunResult::Running => "running",
        RunResult::Succeeded => "succeeded",
        RunResult::Failed => "failed",
        RunResult::Cancelled => "cancelled",
        RunResult::Skipped => "skipped",
    }
}
