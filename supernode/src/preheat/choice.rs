//! Which nodes a job is for. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Included, Unbounded};

use common::node::{Labels, NodeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Names and zones that a job says.
const MAX_WORDS: usize = 10_000;

/// Which nodes: those that all that is said fits. Nothing said is all that are connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Choice {
    /// By host label, node id, or the beginning of one (eight characters or more).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// In one of these zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// In one of these racks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub racks: Vec<String>,
    /// Only so many of those, spread over the zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub count: Option<u32>,
    /// Only so many of a hundred of those, at least one, spread over the zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub percent: Option<u8>,
}

/// A node that can be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Where it stands.
    pub labels: Labels,
}

// === impl Choice ===

impl Choice {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// With what does not.
    pub fn check(&self) -> Result<(), String> {
        if self.names.len() + self.zones.len() + self.racks.len() > MAX_WORDS {
            return Err(format!("more than {MAX_WORDS} nodes and zones are named"));
        }
        if self.count.is_some() && self.percent.is_some() {
            return Err("a number of nodes and a percentage are said: leave one out".into());
        }
        if self.count == Some(0) {
            return Err("count must be at least 1".into());
        }
        if self.percent.is_some_and(|percent| percent == 0 || percent > 100) {
            return Err("percent must be from 1 to 100".into());
        }
        Ok(())
    }

    /// The nodes that are meant, by id; and the names that nobody has.
    pub fn among(&self, candidates: &[Candidate]) -> (Vec<NodeId>, Vec<String>) {
        let one_of =
            |words: &[String], label: &str| words.is_empty() || words.iter().any(|word| word == label);
        let placed = |candidate: &&Candidate| {
            one_of(&self.zones, &candidate.labels.zone) && one_of(&self.racks, &candidate.labels.rack)
        };
        let names = Names::of(candidates);
        let (mut named, mut unknown) = (HashSet::new(), Vec::new());
        for name in &self.names {
            let called: Vec<NodeId> = names.called(name).collect();
            if called.is_empty() {
                unknown.push(name.clone());
            }
            named.extend(called);
        }
        let named = |candidate: &&Candidate| self.names.is_empty() || named.contains(&candidate.node);
        let mut fit: Vec<&Candidate> = candidates.iter().filter(placed).filter(named).collect();
        fit.sort_unstable_by_key(|candidate| candidate.node);
        let most = match (self.count, self.percent) {
            (Some(count), _) => count as usize,
            (None, Some(percent)) => (fit.len() * usize::from(percent)).div_ceil(100),
            (None, None) => fit.len(),
        };
        if most < fit.len() {
            fit = spread(fit, most);
        }
        let mut nodes: Vec<NodeId> = fit.into_iter().map(|candidate| candidate.node).collect();
        nodes.sort_unstable();
        (nodes, unknown)
    }
}

/// How short the beginning of a node id may be.
const LEAST: usize = 8;

/// How nodes can be called: thousands of names are looked up among thousands of nodes.
struct Names<'a> {
    hosts: HashMap<&'a str, Vec<NodeId>>,
    ids: BTreeMap<String, NodeId>,
}

impl<'a> Names<'a> {
    fn of(candidates: &'a [Candidate]) -> Self {
        let mut hosts = HashMap::<&str, Vec<NodeId>>::new();
        for Candidate { node, labels } in candidates {
            hosts.entry(&labels.host).or_default().push(*node);
        }
        Self { hosts, ids: candidates.iter().map(|one| (one.node.to_string(), one.node)).collect() }
    }

    /// Those of this host, and those whose ids begin so.
    fn called(&self, name: &str) -> impl Iterator<Item = NodeId> {
        let hosts = self.hosts.get(name).into_iter().flatten();
        let ids = (name.len() >= LEAST).then(|| self.ids.range::<str, _>((Included(name), Unbounded)));
        let name = name.to_owned();
        let ids = ids.into_iter().flatten().take_while(move |(id, _)| id.starts_with(&name));
        hosts.copied().chain(ids.map(|(_, &node)| node))
    }
}

/// So many of them, from each zone in turn: what is brought to a few is near to all.
fn spread(fit: Vec<&Candidate>, most: usize) -> Vec<&Candidate> {
    let mut turns = BTreeMap::<&str, usize>::new();
    let mut by_turn: Vec<(usize, &Candidate)> = fit
        .into_iter()
        .map(|candidate| {
            let turn = turns.entry(&candidate.labels.zone).or_default();
            *turn += 1;
            (*turn, candidate)
        })
        .collect();
    by_turn.sort_by_key(|(turn, _)| *turn);
    by_turn.into_iter().take(most).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Vec<Candidate> {
        (0..10_u8)
            .map(|number| Candidate {
                node: NodeId([number; 16]),
                labels: Labels {
                    zone: if number < 7 { "a" } else { "b" }.into(),
                    rack: format!("r{}", number % 2),
                    host: format!("node-{number}"),
                },
            })
            .collect()
    }

    fn chosen(choice: &Choice) -> Vec<u8> {
        choice.among(&cluster()).0.into_iter().map(|node| node.0[0]).collect()
    }

    #[test]
    fn all_that_is_said_must_fit() {
        assert_eq!(chosen(&Choice::default()).len(), 10);
        let zone = Choice { zones: vec!["b".into()], ..Choice::default() };
        assert_eq!(chosen(&zone), [7, 8, 9]);
        assert_eq!(chosen(&Choice { racks: vec!["r0".into()], ..zone }), [8]);
        let id = NodeId([3; 16]).to_string();
        let names = vec!["node-1".into(), id[..12].into(), "gone".into()];
        let (nodes, unknown) = Choice { names, ..Choice::default() }.among(&cluster());
        assert_eq!((nodes.len(), unknown), (2, vec!["gone".to_owned()]));
        assert!(chosen(&Choice { names: vec![id[..4].into()], ..Choice::default() }).is_empty());
    }

    #[test]
    fn some_are_spread_over_the_zones() {
        assert_eq!(chosen(&Choice { count: Some(4), ..Choice::default() }), [0, 1, 7, 8]);
        assert_eq!(chosen(&Choice { percent: Some(1), ..Choice::default() }), [0]);
        assert_eq!(chosen(&Choice { percent: Some(100), ..Choice::default() }).len(), 10);
        assert_eq!(chosen(&Choice { count: Some(99), ..Choice::default() }).len(), 10);
    }

    #[test]
    fn nonsense_is_refused() {
        for choice in [
            Choice { count: Some(0), ..Choice::default() },
            Choice { percent: Some(101), ..Choice::default() },
            Choice { percent: Some(5), count: Some(1), ..Choice::default() },
        ] {
            assert!(choice.check().is_err(), "{choice:?}");
        }
    }
}
