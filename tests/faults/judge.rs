//! What must hold, whatever went wrong. Pure: what was found goes in, complaints come out.

use crate::client::{End, Pulled};
use crate::schedule::{Fault, Schedule, Victim};

/// Copies of the image that may leave the origin when nobody had a reason to ask it again.
const COPIES: f64 = 1.2;
/// Bytes of RAM that no daemon may ever have: several times what the busiest needs.
const MEMORY: u64 = 300 << 20;

/// What one schedule has shown.
#[derive(Default)]
pub(crate) struct Findings {
    /// The pulls that the faults were among.
    pub(crate) pulls: Vec<Pulled>,
    /// The same once more, by now from the nodes' own disks.
    pub(crate) again: Vec<Pulled>,
    /// One more by every node, of something else, when all was well again.
    pub(crate) after: Vec<Pulled>,
    /// Copies of the image that left the origin.
    pub(crate) copies: f64,
    /// The most memory of each daemon, in bytes.
    pub(crate) peaks: Vec<(String, u64)>,
    /// Who did not run at the end, and how he ended.
    pub(crate) ended: Vec<String>,
    /// What a store calls proven and is not what its name says: node and task.
    pub(crate) false_proofs: Vec<(String, String)>,
    /// Whose bytes on the disk were flipped on purpose.
    pub(crate) flipped: Vec<String>,
    /// Faults for which the pulls were over too soon.
    pub(crate) missed: usize,
}

/// How many copies may leave the origin; `None` is any number.
///
/// The origin may be asked again by who has lost the supernode, or whose disk takes nothing: a peer that was cut off, or
/// whose disk is full or has changed what it held, may take one copy for itself. With the supernode or the origin itself
/// as the victim everybody may.
fn allowed(schedule: &Schedule) -> Option<f64> {
    let parted = |fault: Fault| {
        use Fault::{Corrupt, Cut, Deafen, Fill, Mute};
        matches!(fault, Corrupt | Cut | Deafen | Mute | Fill)
    };
    if schedule.has(|_, victim| !victim.is_peer()) {
        return None;
    }
    let own = schedule.events.iter().filter(|event| parted(event.fault)).count();
    Some(COPIES + own as f64)
}

/// Whether a client at `node` may have been given wrong bytes in an answer that was then cut short: they came from an
/// origin that lied, and nobody could know before the end.
fn may_spoil(schedule: &Schedule) -> bool {
    schedule.has(|fault, victim| fault == Fault::Corrupt && victim == Victim::Origin)
}

/// All that is wrong; nothing is good.
pub(crate) fn complaints(schedule: &Schedule, findings: &Findings) -> Vec<String> {
    let mut complaints = Vec::new();
    let phases = [("", &findings.pulls), ("again: ", &findings.again), ("afterwards: ", &findings.after)];
    for (phase, pulled) in phases.into_iter().flat_map(|(phase, pulls)| pulls.iter().map(move |p| (phase, p)))
    {
        let Pulled { node, end, took, heard, .. } = pulled;
        if let End::Late(what) = end {
            complaints
                .push(format!("{phase}{node} was not done after {:.0} s: {what:?}", took.as_secs_f64()));
        }
        let flipped = findings.flipped.contains(node);
        // A download that runs is not hashed twice; what has changed meanwhile is found out by the runtime, and by the
        // next read.
        if pulled.wrong > 0 && !(flipped && phase.is_empty()) {
            complaints.push(format!("{phase}{node} was given wrong bytes as whole: {heard}"));
        }
        if pulled.spoilt > 0 && !flipped && !may_spoil(schedule) {
            complaints.push(format!("{phase}{node} was given wrong bytes, then cut: {heard}"));
        }
    }
    if let Some(allowed) = allowed(schedule)
        && findings.copies > allowed
    {
        complaints.push(format!("{:.2} copies left the origin, {allowed:.1} are allowed", findings.copies));
    }
    for (node, peak) in findings.peaks.iter().filter(|(_, peak)| *peak > MEMORY) {
        complaints.push(format!("{node} had {} MiB of memory", peak >> 20));
    }
    complaints.extend(findings.ended.iter().cloned());
    for (node, task) in &findings.false_proofs {
        if !findings.flipped.contains(node) {
            complaints.push(format!("{node} calls {task} proven, and it is not"));
        }
    }
    complaints
}

/// Shows the judge one crime of every kind, and an innocent: which of them it does not tell apart.
pub(crate) fn blind_spots() -> Vec<String> {
    let pulled = |end: End, spoilt, wrong| Pulled {
        node: "node1".into(),
        end,
        took: std::time::Duration::ZERO,
        retries: 0,
        spoilt,
        wrong,
        heard: String::new(),
    };
    let with = |change: fn(&mut Findings)| {
        let mut findings = Findings { copies: 1.0, ..Findings::default() };
        change(&mut findings);
        findings
    };
    let node = || "node1".to_owned();
    let crimes = [
        ("wrong bytes", Findings { pulls: vec![pulled(End::Right, 0, 1)], ..with(|_| ()) }),
        ("a pull that hangs", Findings { pulls: vec![pulled(End::Late(node()), 0, 0)], ..with(|_| ()) }),
        ("no second pull", Findings { again: vec![pulled(End::Late(node()), 0, 0)], ..with(|_| ()) }),
        ("no way back", Findings { after: vec![pulled(End::Late(node()), 0, 0)], ..with(|_| ()) }),
        ("wrong bytes in a cut answer", Findings { pulls: vec![pulled(End::Right, 1, 0)], ..with(|_| ()) }),
        ("copies", with(|findings| findings.copies = 1.3)),
        ("memory", with(|findings| findings.peaks.push(("node1".into(), 301 << 20)))),
        ("a crash", with(|findings| findings.ended.push("node1 ended".into()))),
        ("a false proof", with(|findings| findings.false_proofs.push(("node1".into(), "task".into())))),
    ];
    let kill = Schedule::alone(Fault::Kill, Victim::Parent);
    let missed = crimes.iter().filter(|(_, findings)| complaints(&kill, findings).len() != 1);
    let mut blind: Vec<String> = missed.map(|(crime, _)| format!("blind to {crime}")).collect();
    blind.extend(complaints(&kill, &with(|_| ())));
    if (0..100).any(|seed| Schedule::random(seed) != Schedule::random(seed)) {
        blind.push("one seed is two schedules".into());
    }
    blind
}
