//! The network: every node has a way up and a way down, every zone one in and one out, and a transfer of a piece
//! takes its share of all that it passes. Called by [`world`](crate::world) once a step.
//!
//! A step shares the lines by progressive filling, the well-known way to max-min fairness: all transfers grow alike until a
//! line is full, those on it stop, the others go on. [`ROUNDS`] of that a step leave little unused.

/// Rounds of filling a step.
const ROUNDS: usize = 4;
/// A line with less of its capacity left than this counts as full.
const FULL: f32 = 0.002;

/// One piece on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) piece: u32,
    /// Bytes still to come.
    left: f32,
    /// Bytes granted in this step.
    got: f32,
}

/// A way that bytes take, for one step.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Bytes a step.
    capacity: f32,
    /// What is left of it in this step.
    left: f32,
    /// What a transfer gets in this round.
    fair: f32,
    /// Transfers that want more.
    wanting: u32,
}

/// What nodes and zones can carry, in bytes a step.
pub(crate) struct Capacities {
    pub(crate) up: Vec<f64>,
    pub(crate) down: Vec<f64>,
    /// Into a zone, and the same out of it; nothing: as much as comes.
    pub(crate) zone: Option<f64>,
    /// The zone of each node.
    pub(crate) zone_of: Vec<u16>,
}

/// Lines, transfers and what they carried so far.
pub(crate) struct Network {
    flows: Vec<Flow>,
    up: Vec<Line>,
    down: Vec<Line>,
    /// Out of each zone, and into it.
    out: Vec<Line>,
    into: Vec<Line>,
    zone_of: Vec<u16>,
    narrow_zones: bool,
    active: Vec<u32>,
    /// Bytes that each node sent.
    pub(crate) sent: Vec<f64>,
    /// Bytes into each zone from others.
    pub(crate) crossed: Vec<f64>,
}

// === impl Line ===

impl Line {
    fn new(capacity: f64) -> Self {
        Self { capacity: capacity as f32, ..Self::default() }
    }

    fn is_full(&self) -> bool {
        self.left <= self.capacity * FULL
    }

    fn share(&mut self) {
        self.fair = self.left / self.wanting.max(1) as f32;
        self.wanting = 0;
    }
}

// === impl Network ===

impl Network {
    pub(crate) fn new(capacities: Capacities) -> Self {
        let Capacities { up, down, zone, zone_of } = capacities;
        let zones = zone_of.iter().max().map_or(1, |last| usize::from(*last) + 1);
        let lines = |rates: &[f64]| rates.iter().map(|rate| Line::new(*rate)).collect::<Vec<_>>();
        Self {
            flows: Vec::new(),
            sent: vec![0.0; up.len()],
            crossed: vec![0.0; zones],
            up: lines(&up),
            down: lines(&down),
            out: vec![Line::new(zone.unwrap_or(0.0)); zones],
            into: vec![Line::new(zone.unwrap_or(0.0)); zones],
            zone_of,
            narrow_zones: zone.is_some(),
            active: Vec::new(),
        }
    }

    /// A node's lines carry so many bytes a step from now on; gives what they carried.
    pub(crate) fn set_rate(&mut self, node: u32, (up, down): (f64, f64)) -> (f64, f64) {
        let set = |line: &mut Line, rate: f64| std::mem::replace(&mut line.capacity, rate as f32);
        let (up, down) = (set(&mut self.up[node as usize], up), set(&mut self.down[node as usize], down));
        (f64::from(up), f64::from(down))
    }

    /// A piece of so many bytes sets out.
    pub(crate) fn start(&mut self, from: u32, to: u32, piece: u32, bytes: f64) {
        self.flows.push(Flow { from, to, piece, left: bytes as f32, got: 0.0 });
    }

    /// Takes transfers out; gives them.
    pub(crate) fn cut(&mut self, gone: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        self.flows.extract_if(.., |flow| gone(flow)).collect()
    }

    /// Lets a step pass, in which `spent` bytes of the first node's lines go elsewhere: (up, down). Gives the
    /// transfers that end in it.
    pub(crate) fn advance(&mut self, spent: (f64, f64)) -> Vec<Flow> {
        for lines in [&mut self.up, &mut self.down, &mut self.out, &mut self.into] {
            lines.iter_mut().for_each(|line| line.left = line.capacity);
        }
        self.up[0].left -= spent.0 as f32;
        self.down[0].left -= spent.1 as f32;
        self.active.clear();
        self.active.extend(0..self.flows.len() as u32);
        for _ in 0..ROUNDS {
            self.ask();
            if self.active.is_empty() {
                break;
            }
            self.share();
            self.grant();
        }
        self.settle()
    }

    /// Books what was granted; gives the transfers that end with it.
    fn settle(&mut self) -> Vec<Flow> {
        let mut ended = Vec::new();
        let mut at = 0;
        while let Some(flow) = self.flows.get_mut(at) {
            let got = f64::from(std::mem::take(&mut flow.got));
            flow.left -= got as f32;
            self.sent[flow.from as usize] += got;
            let zone = self.zone_of[flow.to as usize];
            if self.zone_of[flow.from as usize] != zone {
                self.crossed[usize::from(zone)] += got;
            }
            if flow.left < 1.0 {
                ended.push(self.flows.swap_remove(at));
            } else {
                at += 1;
            }
        }
        ended
    }

    /// Counts, line by line, the transfers that want more and may have it.
    fn ask(&mut self) {
        let Self { flows, up, down, out, into, zone_of, narrow_zones, active, .. } = self;
        active.retain(|index| {
            let flow = &flows[*index as usize];
            let (from, to) = (&mut up[flow.from as usize], &mut down[flow.to as usize]);
            if flow.left - flow.got < 1.0 || from.is_full() || to.is_full() {
                return false;
            }
            let zones = (zone_of[flow.from as usize], zone_of[flow.to as usize]);
            if *narrow_zones && zones.0 != zones.1 {
                let (out, into) = (&mut out[usize::from(zones.0)], &mut into[usize::from(zones.1)]);
                if out.is_full() || into.is_full() {
                    return false;
                }
                out.wanting += 1;
                into.wanting += 1;
            }
            from.wanting += 1;
            to.wanting += 1;
            true
        });
    }

    fn share(&mut self) {
        for lines in [&mut self.up, &mut self.down, &mut self.out, &mut self.into] {
            lines.iter_mut().for_each(Line::share);
        }
    }

    /// Gives every transfer what the narrowest of its lines can give each.
    fn grant(&mut self) {
        let Self { flows, up, down, out, into, zone_of, narrow_zones, active, .. } = self;
        for index in active.iter() {
            let flow = &mut flows[*index as usize];
            let (from, to) = (&mut up[flow.from as usize], &mut down[flow.to as usize]);
            let mut grant = from.fair.min(to.fair).min(flow.left - flow.got);
            let zones = (zone_of[flow.from as usize], zone_of[flow.to as usize]);
            if *narrow_zones && zones.0 != zones.1 {
                let (out, into) = (&mut out[usize::from(zones.0)], &mut into[usize::from(zones.1)]);
                grant = grant.min(out.fair).min(into.fair);
                out.left -= grant;
                into.left -= grant;
            }
            from.left -= grant;
            to.left -= grant;
            flow.got += grant;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(up: &[f64], down: &[f64], zone: Option<f64>, zone_of: &[u16]) -> Network {
        let (up, down, zone_of) = (up.to_vec(), down.to_vec(), zone_of.to_vec());
        Network::new(Capacities { up, down, zone, zone_of })
    }

    #[test]
    fn what_one_transfer_cannot_take_another_gets() {
        // 0 sends to a slow 1 and a fast 2.
        let mut network = network(&[100.0; 3], &[100.0, 10.0, 500.0], None, &[0; 3]);
        network.start(0, 1, 0, 1000.0);
        network.start(0, 2, 0, 1000.0);
        network.advance((0.0, 0.0));
        assert!((f64::from(network.flows[0].left) - 990.0).abs() < 1.0);
        assert!((f64::from(network.flows[1].left) - 910.0).abs() < 1.0);
    }

    #[test]
    fn a_line_between_zones_binds_only_what_crosses() {
        let mut network = network(&[100.0; 3], &[100.0; 3], Some(30.0), &[0, 0, 1]);
        network.start(0, 1, 0, 60.0);
        network.start(0, 2, 0, 60.0);
        let ended = network.advance((0.0, 0.0));
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].to, 1);
        assert!((network.crossed[1] - 30.0).abs() < 0.5 && network.crossed[0] == 0.0);
        assert!((network.sent[0] - 90.0).abs() < 0.5);
    }

    #[test]
    fn what_is_spent_elsewhere_is_not_there() {
        let mut network = network(&[100.0; 2], &[100.0; 2], None, &[0; 2]);
        network.start(0, 1, 7, 100.0);
        assert!(network.advance((40.0, 0.0)).is_empty());
        assert!((network.sent[0] - 60.0).abs() < 0.5);
        assert_eq!(network.cut(|flow| flow.piece == 7).len(), 1);
    }
}
