//! Rate-limited hosts on one machine: a network namespace each, hung on the bridges of one more, the switch.
//!
//! Both ends of each host's cable have a token bucket: the host's end limits what it sends, the switch's end what
//! it receives. With zones, each zone's hosts hang on a bridge of their own, and a cable that is limited
//! likewise joins it to the core's.
//!
//! # Invariants
//! - Nothing in the machine's own network is touched; there is no route out of the hosts.
//! - The namespaces carry this process's id in their names and go when [`Network`] is dropped. What a killed run left
//!   behind is removed by the next one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "ls";
/// The hosts' network; nobody else sees it.
const SUBNET: &str = "10.88.0.0/16";
const CORE: &str = "core";
/// A token bucket smaller than the largest packet that the kernel hands to a card at once would stall it.
const LEAST_BURST: u64 = 65536;

/// A host that is to be.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) rate: u64,
    /// The zone that it stands in, from 0; none is the core.
    pub(crate) zone: Option<u16>,
}

/// All hosts and what joins them.
pub(crate) struct Network {
    pub(crate) switch: Place,
    hosts: Vec<Host>,
    zones: u16,
}

/// One host.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) zone: Option<u16>,
    pub(crate) place: Place,
}

/// A network namespace.
#[derive(Clone)]
pub(crate) struct Place(String);

// === impl Network ===

impl Network {
    /// Makes the hosts of `plans`, in `zones` zones that are joined to the core at `zone_rate`.
    pub(crate) fn make(plans: &[Plan], zones: u16, zone_rate: u64) -> anyhow::Result<Self> {
        remove_leftovers();
        let place = |name: &str| Place(format!("{PREFIX}{}-{name}", std::process::id()));
        let host = |(number, plan): (usize, &Plan)| Host {
            name: plan.name.clone(),
            address: address(number),
            zone: plan.zone,
            place: place(&plan.name),
        };
        let hosts = plans.iter().enumerate().map(host).collect();
        // From here on it is dropped, and so removed, whatever fails.
        let network = Self { switch: place("switch"), hosts, zones };
        let all: String =
            network.places().fold(String::new(), |all, place| all + &format!("netns add {}\n", place.0));
        batch("ip", None, &all)?;
        network.make_bridges(zone_rate)?;
        for (host, plan) in network.hosts.iter().zip(plans) {
            network.plug(host, plan.rate)?;
        }
        Ok(network)
    }

    /// The host of that name.
    pub(crate) fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("there is no host {name}"))
    }

    /// The bytes that have gone into each zone over its link.
    pub(crate) fn zone_bytes(&self) -> anyhow::Result<Vec<u64>> {
        (0..self.zones).map(|zone| self.switch.sent(&format!("down-{zone}"))).collect()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.switch).chain(self.hosts.iter().map(|host| &host.place))
    }

    fn make_bridges(&self, zone_rate: u64) -> anyhow::Result<()> {
        let mut links = format!("link add {CORE} type bridge\nlink set {CORE} up\n");
        let mut limits = String::new();
        for zone in 0..self.zones {
            let (bridge, up, down) = (bridge(Some(zone)), format!("up-{zone}"), format!("down-{zone}"));
            write!(
                links,
                "link add {bridge} type bridge\nlink set {bridge} up\nlink add {up} type veth peer name {down}\n\
                 link set {up} master {bridge} up\nlink set {down} master {CORE} up\n"
            )?;
            limits += &(limit(&up, zone_rate) + &limit(&down, zone_rate));
        }
        batch("ip", Some(&self.switch), &links)?;
        batch("tc", Some(&self.switch), &limits)
    }

    /// Gives a host its cable.
    fn plug(&self, host: &Host, rate: u64) -> anyhow::Result<()> {
        let (cable, bridge, inside) = (host.cable(), bridge(host.zone), &host.place.0);
        let links = format!(
            "link add {cable} type veth peer name eth0 netns {inside}\nlink set {cable} master {bridge} up\n"
        );
        batch("ip", Some(&self.switch), &links)?;
        let Host { address, .. } = host;
        // Cubic whatever the machine's default: it is what most of the world's hosts have.
        let mut set = format!(
            "link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 address {} up\n\
             route replace {SUBNET} dev eth0 proto kernel scope link src {address} congctl cubic\n",
            hardware(*address)
        );
        // The kernel's table of neighbours is shared by all namespaces and too small for hundreds of hosts that all know
        // each other; lasting entries do not count.
        for other in self.hosts.iter().filter(|other| other.address != *address) {
            let (address, hardware) = (other.address, hardware(other.address));
            writeln!(set, "neigh replace {address} lladdr {hardware} dev eth0 nud permanent")?;
        }
        batch("ip", Some(&host.place), &set)?;
        batch("tc", Some(&host.place), &limit("eth0", rate))?;
        batch("tc", Some(&self.switch), &limit(&cable, rate))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.places().for_each(remove);
    }
}

// === impl Host ===

impl Host {
    /// `program` on this host. It dies with this process, however that ends.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        // Not `ip netns exec`: that mounts another /sys, and the control groups in it are gone.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.place.path().display()))
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(program.as_ref());
        command
    }

    /// Runs `deed` in a thread that stands on this host.
    pub(crate) async fn inside<F, T>(&self, deed: F) -> anyhow::Result<T>
    where
        F: AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (place, (told, tell)) = (self.place.clone(), {
            let (tell, told) = oneshot::channel();
            (told, tell)
        });
        std::thread::Builder::new().name(self.name.clone()).spawn(move || {
            let result = place.enter().and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(deed())
            });
            let _ = tell.send(result);
        })?;
        told.await.with_context(|| format!("what was to be done on {} ended in a panic", self.name))?
    }

    /// The switch's end of its cable.
    pub(crate) fn cable(&self) -> String {
        format!("v-{}", self.name)
    }

    /// The bytes that it has sent since it was made, with the headers of Ethernet, IP and what is above.
    pub(crate) fn sent(&self) -> anyhow::Result<u64> {
        self.place.sent("eth0")
    }
}

// === impl Place ===

impl Place {
    fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.0)
    }

    /// Moves this thread there.
    fn enter(&self) -> anyhow::Result<()> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.0))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter namespace {}", self.0))
    }

    /// What a card has sent.
    fn sent(&self, card: &str) -> anyhow::Result<u64> {
        let read = || {
            self.enter()?;
            let text = fs::read_to_string("/proc/thread-self/net/dev")?;
            let line = text.lines().find_map(|line| line.trim().strip_prefix(card)?.strip_prefix(':'));
            // Eight columns of what was received go before it.
            let sent = line.and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
            sent.with_context(|| format!("{} does not say what {card} has sent", self.0))
        };
        std::thread::scope(|scope| scope.spawn(read).join()).expect("invariant: reading does not panic")
    }
}

/// Addresses end in 1 to 250.
fn address(number: usize) -> Ipv4Addr {
    let (high, low) = (number / 250, number % 250 + 1);
    Ipv4Addr::new(10, 88, u8::try_from(high).expect("invariant: few hosts"), low as u8)
}

/// A hardware address that is nobody's: the second bit of the first byte says so.
fn hardware(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn bridge(zone: Option<u16>) -> String {
    zone.map_or_else(|| CORE.to_owned(), |zone| format!("zone-{zone}"))
}

/// A token bucket of 10 ms, and a queue of 50 ms before it.
pub(crate) fn limit(card: &str, rate: u64) -> String {
    let burst = (rate / 8 / 100).max(LEAST_BURST);
    format!("qdisc replace dev {card} root tbf rate {rate}bit burst {burst} latency 50ms\n")
}

/// Has `ip` or `tc` do all of `orders`, one a line, in the namespace.
pub(crate) fn batch(tool: &str, place: Option<&Place>, orders: &str) -> anyhow::Result<()> {
    let mut command = Command::new(tool);
    if let Some(place) = place {
        command.args(["-n", &place.0]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().with_context(|| format!("cannot start {tool}"))?;
    // It reads to the end before it could have said more than a pipe holds.
    let fed = running.stdin.take().map(|mut input| input.write_all(orders.as_bytes()));
    let output = running.wait_with_output()?;
    if !output.status.success() {
        bail!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(fed.transpose().map(drop)?)
}

fn remove(place: &Place) {
    if place.path().exists()
        && let Err(error) = batch("ip", None, &format!("netns del {}\n", place.0))
    {
        eprintln!("cannot remove namespace {}: {error}", place.0);
    }
}

/// Namespaces of runs that were killed.
fn remove_leftovers() {
    let names = fs::read_dir(NAMESPACES).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter_map(|name| name.into_string().ok()) {
        if is_left_over(&name, PREFIX) {
            remove(&Place(name));
        }
    }
}

/// Whether a name is `<prefix><process>-…` of a process that is no more.
pub(crate) fn is_left_over(name: &str, prefix: &str) -> bool {
    let process = name.strip_prefix(prefix).and_then(|rest| rest.split_once('-'));
    process.is_some_and(|(process, _)| {
        process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists()
    })
}
