//! What `top` knows: the last two looks at a daemon, and what the user wants to see of them. Pure.

use std::collections::BTreeMap;

use peer::local_api::pulls::Pulls;
use peer::record::explain::Summary;
use serde_json::Value;

/// Looks that are remembered for the little curves.
pub const CURVE: usize = 60;

/// One look at a daemon.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, in seconds since `top` began.
    pub at: f64,
    /// As `GET status` answers.
    pub status: Value,
    /// As `GET pulls` answers.
    pub pulls: Pulls,
}

/// What fills the lower part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Downloads that go on, and the last that are over.
    Pulls,
    /// At a supernode the swarms, at a peer its running tasks.
    Swarms,
    /// At a supernode the peers, at a peer the neighbours that did something wrong.
    Nodes,
}

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// Whatever is shown.
    End,
    /// The help, if it is shown; else all of it.
    Quit,
    Up,
    Down,
    Left,
    Right,
    Sort,
    Pause,
    Help,
}

/// A table of the lower part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub title: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Bytes by where from or to whom: all of them, and a second's.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub name: String,
    pub total: u64,
    pub rate: f64,
    /// A second's, of late; the newest last.
    pub curve: Vec<u64>,
}

/// All that is drawn.
#[derive(Debug)]
pub struct State {
    pub look: Option<Look>,
    before: Option<Look>,
    curves: BTreeMap<String, Vec<u64>>,
    pub page: Page,
    pub row: usize,
    pub sort: usize,
    pub paused: bool,
    pub help: bool,
    /// Why the daemon does not answer.
    pub trouble: Option<String>,
}

const PAGES: [Page; 3] = [Page::Pulls, Page::Swarms, Page::Nodes];

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self {
            look: None,
            before: None,
            curves: BTreeMap::new(),
            page: Page::Pulls,
            row: 0,
            sort: 0,
            paused: false,
            help: false,
            trouble: None,
        }
    }
}

impl State {
    /// The daemon answered.
    pub fn saw(&mut self, look: Look) {
        self.trouble = None;
        if self.paused {
            return;
        }
        self.before = self.look.replace(look);
        for Flow { name, rate, .. } in self.flows() {
            let curve = self.curves.entry(name).or_default();
            curve.push(rate as u64);
            curve.drain(..curve.len().saturating_sub(CURVE));
        }
    }

    /// It did not.
    pub fn missed(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// What the user wants; false when that is to end.
    pub fn press(&mut self, press: Press) -> bool {
        let at = PAGES.iter().position(|page| *page == self.page).unwrap_or_default();
        match press {
            Press::Quit if self.help => self.help = false,
            Press::Quit | Press::End => return false,
            Press::Help => self.help = !self.help,
            Press::Pause => self.paused = !self.paused,
            Press::Sort => self.sort = (self.sort + 1) % self.table().head.len().max(1),
            Press::Up => self.row = self.row.saturating_sub(1),
            Press::Down => self.row = (self.row + 1).min(self.table().rows.len().saturating_sub(1)),
            Press::Left | Press::Right => {
                let step = if press == Press::Left { PAGES.len() - 1 } else { 1 };
                self.page = PAGES[(at + step) % PAGES.len()];
                (self.row, self.sort) = (0, 0);
            }
        }
        true
    }

    /// Whether the daemon is a supernode.
    pub fn is_supernode(&self) -> bool {
        self.look.as_ref().is_some_and(|look| look.status.get("seed").is_some())
    }

    /// The node's own part of the status: at a supernode that of its seed.
    pub fn node(&self) -> &Value {
        static NONE: Value = Value::Null;
        let Some(look) = &self.look else { return &NONE };
        look.status.get("seed").unwrap_or(&look.status)
    }

    /// Bytes by where from and to whom.
    pub fn flows(&self) -> Vec<Flow> {
        let node = self.node();
        let of = |kind: &str, word: &str| -> Vec<Flow> {
            let all = node[kind].as_object().into_iter().flatten();
            all.map(|(name, total)| {
                let total = total.as_u64().unwrap_or_default();
                let shown = format!("{word} {name}");
                let curve = self.curves.get(&shown).cloned().unwrap_or_default();
                Flow { rate: self.rate(total, kind, name), name: shown, total, curve }
            })
            .collect()
        };
        [of("received", "from"), of("sent", "to")].concat()
    }

    fn rate(&self, total: u64, kind: &str, name: &str) -> f64 {
        let (Some(look), Some(before)) = (&self.look, &self.before) else { return 0.0 };
        let node = before.status.get("seed").unwrap_or(&before.status);
        // A daemon that was started anew counts from nothing.
        let earlier = node[kind][name].as_u64().filter(|earlier| *earlier <= total).unwrap_or(total);
        let seconds = look.at - before.at;
        if seconds > 0.0 { (total - earlier) as f64 / seconds } else { 0.0 }
    }

    /// The page's table, sorted.
    pub fn table(&self) -> Table {
        let (title, head, mut rows) = match self.page {
            Page::Pulls => self.pulls(),
            Page::Swarms => self.swarms(),
            Page::Nodes => self.nodes(),
        };
        let column = self.sort.min(head.len() - 1);
        // The first column is the daemon's own order.
        if column > 0 {
            rows.sort_by(|(one, _), (other, _)| one[column].order(&other[column]));
        }
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        Table { title, head, rows }
    }

    fn pulls(&self) -> (String, Vec<&'static str>, Vec<Sorted>) {
        let head = vec!["PULL", "STATE", "BYTES", "OF", "SPEED", "TIME", "FROM"];
        let all = self.look.iter().flat_map(|look| &look.pulls.pulls);
        let mut all: Vec<&Summary> = all.collect();
        all.sort_by_key(|pull| pull.state != "running");
        let running = all.iter().filter(|pull| pull.state == "running").count();
        let rows = all.iter().map(|pull| self.pull(pull)).collect();
        (format!("pulls: {running} go on, {} are remembered", all.len()), head, rows)
    }

    fn pull(&self, pull: &Summary) -> Sorted {
        let count: u64 = pull.sources.values().sum();
        let name = pull.name.as_deref().map_or_else(String::new, |name| format!(" {name}"));
        let of = |source: &str| pull.sources.get(source).copied().unwrap_or_default();
        let mut from: Vec<(u64, &String)> = pull.sources.iter().map(|(name, count)| (*count, name)).collect();
        from.sort_unstable_by(|one, other| other.cmp(one));
        let share = |(count_of, name): &(u64, &String)| format!("{name} {} %", count_of * 100 / count.max(1));
        let from: Vec<String> = from.iter().filter(|(count, _)| *count > 0).map(share).collect();
        let rate = if pull.state == "running" {
            self.rate_of(pull, count)
        } else {
            count as f64 / pull.seconds.max(1e-3)
        };
        let row = vec![
            format!("{:.12}{name}", pull.task),
            pull.state.clone(),
            size(count as f64),
            pull.length.map_or_else(|| "?".to_owned(), |length| size(length as f64)),
            speed(rate),
            format!("{:.1} s", pull.seconds),
            from.join(", "),
        ];
        let keys = vec![
            Key::Text(pull.task.clone()),
            Key::Text(pull.state.clone()),
            Key::Most(count as f64),
            Key::Most(pull.length.unwrap_or_default() as f64),
            Key::Most(rate),
            Key::Most(pull.seconds),
            Key::Most(of("origin") as f64),
        ];
        (keys, row)
    }

    /// A second's bytes of a pull that goes on.
    fn rate_of(&self, pull: &Summary, count: u64) -> f64 {
        let (Some(look), Some(before)) = (&self.look, &self.before) else { return 0.0 };
        let earlier =
            before.pulls.pulls.iter().find(|other| other.task == pull.task && other.begun == pull.begun);
        let earlier = earlier.map_or(0, |earlier| earlier.sources.values().sum());
        let seconds = (look.at - before.at).min(pull.seconds);
        if seconds > 0.0 { count.saturating_sub(earlier) as f64 / seconds } else { 0.0 }
    }

    fn swarms(&self) -> (String, Vec<&'static str>, Vec<Sorted>) {
        let tasks: Vec<&Value> = match &self.look {
            Some(look) => look.status["tasks"].as_array().into_iter().flatten().collect(),
            None => Vec::new(),
        };
        let (word, head): (_, Vec<&'static str>) = match self.is_supernode() {
            true => ("swarms", vec!["TASK", "MEMBERS", "COMPLETE", "PIECES", "SEED HAS", "FROM SEED"]),
            false => ("running tasks", vec!["TASK", "PIECES", "HERE", "LENGTH"]),
        };
        let fields: &[&str] = match self.is_supernode() {
            true => &["members", "complete", "pieces", "seed_held", "seed_children"],
            false => &["pieces", "held", "length"],
        };
        let row = |task: &&Value| {
            let id = text(&task["task"]);
            let numbers = fields.iter().map(|field| (*field, task[*field].as_u64()));
            let shown = numbers.clone().map(|(field, number)| match (field, number) {
                ("length", Some(length)) => size(length as f64),
                (_, number) => number.map_or_else(|| "?".to_owned(), |number| number.to_string()),
            });
            let keys = numbers.map(|(_, number)| Key::Most(number.unwrap_or_default() as f64));
            let row = std::iter::once(format!("{id:.12}")).chain(shown).collect();
            (std::iter::once(Key::Text(id.to_owned())).chain(keys).collect(), row)
        };
        (format!("{word}: {}", tasks.len()), head, tasks.iter().map(row).collect())
    }

    fn nodes(&self) -> (String, Vec<&'static str>, Vec<Sorted>) {
        let Some(look) = &self.look else { return (String::new(), vec!["NODE"], Vec::new()) };
        if self.is_supernode() {
            let peers = look.status["peers"].as_array().into_iter().flatten();
            let row = |peer: &Value| {
                let number = |field: &str| peer[field].as_f64().unwrap_or_default();
                let texts = [
                    text(&peer["node"]),
                    text(&peer["address"]),
                    text(&peer["labels"]["zone"]),
                    text(&peer["standing"]),
                ];
                let [node, address, zone, standing] = texts.map(ToOwned::to_owned);
                let keys = [&node, &address, &zone].map(|text| Key::Text(text.clone()));
                let keys = keys.into_iter().chain([
                    Key::Most(number("tasks")),
                    Key::Most(number("blames")),
                    Key::Text(standing.clone()),
                ]);
                (
                    keys.collect(),
                    vec![
                        node,
                        address,
                        zone,
                        peer["tasks"].to_string(),
                        peer["blames"].to_string(),
                        standing,
                    ],
                )
            };
            let rows: Vec<Sorted> = peers.map(row).collect();
            let head = vec!["NODE", "ADDRESS", "ZONE", "TASKS", "BLAMES", "STANDING"];
            return (format!("peers: {}", look.status["sessions"]), head, rows);
        }
        let neighbours = look.status["neighbours"].as_array().into_iter().flatten();
        let row = |neighbour: &Value| {
            let faults = neighbour["faults"].as_object().into_iter().flatten();
            let total: u64 = faults.clone().filter_map(|(_, count)| count.as_u64()).sum();
            let faults: Vec<_> = faults.map(|(fault, count)| format!("{fault} {count}")).collect();
            let trusted = if neighbour["barred"] == true { "no" } else { "yes" };
            let node = text(&neighbour["node"]).to_owned();
            (
                vec![Key::Text(node.clone()), Key::Text(trusted.to_owned()), Key::Most(total as f64)],
                vec![node, trusted.to_owned(), faults.join(", ")],
            )
        };
        let rows: Vec<Sorted> = neighbours.map(row).collect();
        (
            format!("neighbours that did something wrong: {}", rows.len()),
            vec!["NODE", "TRUSTED", "FAULTS"],
            rows,
        )
    }
}

/// A row, and what it is sorted by.
type Sorted = (Vec<Key>, Vec<String>);

/// What a column is sorted by.
enum Key {
    /// The first one first.
    Text(String),
    /// The greatest first.
    Most(f64),
}

// === impl Key ===

impl Key {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Most(one), Self::Most(other)) => other.total_cmp(one),
            _ => std::cmp::Ordering::Equal,
        }
    }
}

/// `1.2 MiB`
pub fn size(count: f64) -> String {
    crate::progress::bytes(count as u64)
}

/// `1.2 MiB/s`, or nothing.
pub fn speed(rate: f64) -> String {
    if rate < 1.0 { "-".to_owned() } else { format!("{}/s", size(rate)) }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::top) fn peer_look(at: f64, received: u64) -> Look {
        let pull = |task: &str, state: &str, count: u64| Summary {
            task: task.repeat(32),
            name: Some("quay.test/team/app".into()),
            client: None,
            begun: 7,
            seconds: 4.0,
            length: Some(8 << 20),
            sources: [("peer".to_owned(), count), ("seed".to_owned(), count / 3)].into(),
            first_byte: None,
            state: state.into(),
            error: None,
        };
        let status = json!({
            "node": "7f".repeat(16), "version": "0.1.0", "supernode": true,
            "supernodes": [{"address": "10.0.0.1:7700", "connected": true}, {"address": "10.0.0.2:7700", "connected": false}],
            "tasks": [{"task": "ab".repeat(32), "held": 3, "pieces": 8, "length": 8 << 20}],
            "received": {"peer": received, "seed": 1 << 20}, "sent": {"client": 0},
            "neighbours": [{"node": "11".repeat(16), "barred": true, "faults": {"slow": 3, "silent": 1}}],
            "stored_bytes": 1 << 30, "stored_tasks": 12, "disk_bytes": 1 << 30, "free_bytes": 5_u64 << 30, "pinned_tasks": 1,
        });
        let pulls = vec![pull("cd", "ok", 3 << 20), pull("ab", "running", received)];
        Look { at, status, pulls: Pulls { images: Vec::new(), pulls } }
    }

    pub(in crate::top) fn supernode_look(at: f64) -> Look {
        let peer = |node: &str, blames: f64| json!({"node": node.repeat(16), "address": "10.0.0.9:7710", "labels": {"zone": "a"}, "tasks": 2, "blames": blames, "standing": "good"});
        let status = json!({
            "seed": {"node": "5e".repeat(16), "version": "0.1.0", "received": {"origin": 5 << 20}, "sent": {"peer": 9 << 20}},
            "sessions": 2, "peers": [peer("aa", 0.0), peer("bb", 2.5)],
            "tasks": [{"task": "ab".repeat(32), "members": 2, "complete": 1, "pieces": 8, "seed_held": 8, "seed_children": 1}],
        });
        Look { at, status, pulls: Pulls { images: Vec::new(), pulls: Vec::new() } }
    }

    #[test]
    fn speeds_are_what_came_between_two_looks() {
        let mut state = State::default();
        state.saw(peer_look(1.0, 1 << 20));
        assert!(state.flows().iter().all(|flow| flow.rate == 0.0));
        state.saw(peer_look(3.0, 5 << 20));
        let flows = state.flows();
        let peer = flows.iter().find(|flow| flow.name == "from peer").unwrap();
        assert_eq!(
            (peer.rate, peer.total, peer.curve.as_slice()),
            (2.0 * 1048576.0, 5 << 20, &[0, 2 << 20][..])
        );
        state.saw(peer_look(4.0, 0));
        assert_eq!(state.flows()[0].rate, 0.0, "another daemon");
        (0..200).for_each(|n| state.saw(peer_look(5.0 + f64::from(n), 0)));
        assert_eq!(state.flows()[0].curve.len(), CURVE);
    }

    #[test]
    fn keys_change_pages_rows_and_order_and_a_pause_holds_all() {
        let mut state = State::default();
        state.saw(peer_look(1.0, 1 << 20));
        assert!(state.table().rows[0][0].starts_with("abababababab quay.test"), "what goes on is first");
        assert!(state.press(Press::Down) && state.press(Press::Down));
        assert_eq!(state.row, 1);
        (0..2).for_each(|_| assert!(state.press(Press::Sort)));
        assert!(state.table().rows[0][0].starts_with("cdcdcdcdcdcd"), "more bytes");
        assert!(state.press(Press::Left));
        assert_eq!((state.page, state.row, state.sort), (Page::Nodes, 0, 0));
        assert_eq!(state.table().rows[0][1..], ["no", "silent 1, slow 3"]);
        state.press(Press::Pause);
        state.saw(supernode_look(2.0));
        assert!(!state.is_supernode());
        state.press(Press::Help);
        assert!(state.press(Press::Quit) && !state.help, "the help is closed first");
        assert!(!state.press(Press::Quit));
    }

    #[test]
    fn a_supernode_shows_swarms_and_peers() {
        let mut state = State::default();
        for press in [Press::Sort, Press::Up, Press::Down, Press::Right, Press::Left] {
            assert!(state.press(press), "before anything is known");
        }
        state.saw(supernode_look(1.0));
        state.press(Press::Right);
        assert_eq!(state.table().rows[0], ["abababababab", "2", "1", "8", "8", "1"]);
        state.press(Press::Right);
        (0..4).for_each(|_| assert!(state.press(Press::Sort)));
        assert!(state.table().rows[0][0].starts_with("bbbb"), "the most blamed first");
    }
}
