//! What must hold, whatever went wrong. Pure: what was found goes in, complaints come out.

use std::collections::BTreeMap;
use std::time::Duration;

use common::wire::swarm::Fault;
use supernode::scheduler::Counts;

use super::{Event, Plan, Role, Trouble, Victim};

/// Copies of the task that may leave the origin when nobody had a reason to ask it again.
const COPIES: f64 = 1.2;
/// Wrong pieces that a node may be sent by one neighbour: it is barred at the first, and some are under way by then.
const WRONG: u32 = 8;
/// Pieces that it may be promised and refused by one.
const REFUSED: u32 = 20;

/// Whoever crawls for longer may lose patience with its neighbours.
const LONG: Duration = Duration::from_secs(10);

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Findings {
    /// Peers that are there and do not have the task, and how often each one's pulls failed.
    pub without: Vec<(u32, u32)>,
    /// The supernode at which all peers ask, first in their order of those that are there, has all of it.
    pub seed_has_all: bool,
    /// Copies that left the origin.
    pub copies: f64,
    /// Pieces that were asked for without a digest to compare them with.
    pub blind: u64,
    /// Faults that a peer saw in another: by whom, in whom, of which kind.
    pub faults: BTreeMap<(u32, u32), Vec<Fault>>,
    /// Who was barred by whom.
    pub barred: Vec<(u32, u32)>,
    /// Who was nobody's parent any more at some supernode.
    pub outcasts: Vec<u32>,
    /// What supernodes kept when all peers had gone, and their seeds had ended.
    pub left: Vec<Counts>,
    /// Virtual seconds until all was over.
    pub seconds: f64,
}

/// How many copies may leave the origin; `None` is any number.
///
/// With all supernodes as victims, or the origin, everybody may ask it; so they may when a supernode is there and far too
/// slow. Where there are several, one that is lost may cost two copies: another takes its task over, and it begins anew with
/// those who come when it is back. Whoever is cut off, or crawls
/// for long, may cost one.
fn allowed(plan: &Plan, supernodes: u32) -> Option<f64> {
    let of_supernode = |victim: Victim| matches!(victim, Victim::Supernode(_));
    let slow = |trouble, victim| trouble == Trouble::Crawl && of_supernode(victim);
    let hit = plan.events.iter().filter(|event| of_supernode(event.victim)).count() as u32;
    if hit >= supernodes || plan.has(|trouble, victim| victim == Victim::Origin || slow(trouble, victim)) {
        return None;
    }
    let own = |event: &Event| match event.trouble {
        // It loses one session after the other, and is heard still: each of the others may begin its task.
        Trouble::Deafen => f64::from(supernodes),
        Trouble::Cut | Trouble::Mute | Trouble::Part(_) => 1.0,
        Trouble::Kill { .. } if of_supernode(event.victim) => 2.0,
        Trouble::Crawl if event.lasts.is_none_or(|lasts| lasts > LONG) => 1.0,
        Trouble::Kill { .. } | Trouble::Crawl | Trouble::Evict => 0.0,
    };
    Some(COPIES + plan.events.iter().map(own).sum::<f64>())
}

/// All that is wrong; nothing is good.
pub fn complaints(plan: &Plan, supernodes: u32, found: &Findings) -> Vec<String> {
    let mut complaints = Vec::new();
    let gone = plan.events.iter().any(|event| event.victim == Victim::Origin && event.lasts.is_none());
    for (peer, failures) in &found.without {
        if !gone || found.seed_has_all || *failures == 0 {
            complaints.push(format!("peer {peer} has not got the task; {failures} of its pulls failed"));
        }
    }
    if let Some(allowed) = allowed(plan, supernodes).filter(|allowed| found.copies > *allowed) {
        complaints.push(format!("{:.2} copies left the origin, {allowed:.1} are allowed", found.copies));
    }
    if found.blind > 0 {
        complaints.push(format!("{} pieces were asked for without a digest", found.blind));
    }
    let role = |peer: &u32| plan.villains.iter().find(|(villain, _)| villain == peer).map(|(_, role)| *role);
    for ((by, about), faults) in &found.faults {
        let count = |kinds: &[Fault]| faults.iter().filter(|fault| kinds.contains(fault)).count() as u32;
        let (wrong, refused) = (count(&[Fault::WrongBytes]), count(&[Fault::FalseClaim, Fault::FalseSet]));
        // A restart forgets whom it trusts.
        let kill = |event: &&Event| {
            event.victim == Victim::Peer(*by) && matches!(event.trouble, Trouble::Kill { .. })
        };
        let lives = 1 + plan.events.iter().filter(kill).count() as u32;
        if wrong > WRONG * lives || refused > REFUSED * lives {
            complaints.push(format!("{by} took {wrong} wrong pieces and {refused} refusals from {about}"));
        }
        if wrong > 0 && role(about) != Some(Role::Liar) {
            complaints.push(format!("{by} says that the honest {about} sends wrong bytes"));
        }
    }
    let barred = found.barred.iter().filter(|(_, about)| role(about).is_none());
    complaints.extend(barred.map(|(by, about)| format!("{by} barred the honest {about}")));
    let outcasts = found.outcasts.iter().filter(|peer| role(peer).is_none());
    complaints.extend(outcasts.map(|peer| format!("the honest {peer} is an outcast")));
    let empty = |left: &&Counts| **left == Counts::default();
    complaints
        .extend(found.left.iter().filter(|left| !empty(left)).map(|left| format!("left behind: {left:?}")));
    complaints
}
