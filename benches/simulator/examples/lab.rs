use simulator::*;
use std::time::Duration;
fn main() {
    let mut s = Scenario::default();
    let mut seeds = 1u64;
    for arg in std::env::args().skip(1) {
        let (k, v) = arg.split_once('=').unwrap();
        let f: f64 = v.parse().unwrap_or(0.0);
        match k {
            "n" => s.peers = f as u32,
            "mib" => s.size = (f * 1048576.0) as u64,
            "mbit" => s = s.with_rate((f * 1e6) as u64),
            "seed" => s.seed_rate = (f * 1e6) as u64,
            "origin" => s.origin_rate = (f * 1e6) as u64,
            "zones" => s.zones = f as u32,
            "zrate" => s.zone_rate = Some((f * 1e6) as u64),
            "churn" => s.churn.share = f / 100.0,
            "back" => s.churn.back_after = Some(Duration::from_secs_f64(f)),
            "roll" => s.arrival = Arrival::Rolling(s.bound().mul_f64(f)),
            "step" => s.step = Some(Duration::from_secs_f64(f / 1e3)),
            "lat" => s.latency = Duration::from_secs_f64(f / 1e3),
            "over" => s.overhead = f,
            "free" => s.control_takes_room = f == 0.0,
            "parents" => s.settings.parents_per_peer = f as usize,
            "sslots" => s.settings.seed_slots = f as usize,
            "slots" => s.slots = f as u16,
            "seeds" => seeds = f as u64,
            "up" => s.uploads = Some(f as u32),
            "sup" => s.seed_uploads = Some(f as u32),
            "rng" => s.rng = f as u64,
            _ => panic!("{k}"),
        }
    }
    let mut lasts = Vec::new();
    for i in 0..seeds {
        s.rng = s.rng + i;
        let o = run(&s);
        lasts.push(o.ratio(100.0));
        println!("med {:.3} p99 {:.3} last {:.3} seed {:.3} orig {:.2} sent {:.3} hedge {:.4} fall {} cry {} unf {} zone {:.2?} ctl {:.3}/{:.3} links {} tells/p {:.1} ev {} {:.0}k/s wall {:.1}",
            o.ratio(50.0), o.ratio(99.0), o.ratio(100.0), o.seed_factor, o.origin_factor, o.sent_factor, o.hedges as f64 / o.pieces.max(1) as f64,
            o.fallbacks, o.cries, o.unfinished, o.zone_factors.iter().copied().take(6).collect::<Vec<_>>(), o.control_factors.0, o.control_factors.1, o.most_links,
            o.tells as f64 / o.pieces.max(1) as f64, o.events, o.events_per_second() / 1e3, o.wall.as_secs_f64());
    }
    if seeds > 1 { println!("   mean last {:.3} worst {:.3}", lasts.iter().sum::<f64>() / seeds as f64, lasts.iter().copied().fold(0.0, f64::max)); }
}
