//! How fast `longshore get` brings a file straight from a fast origin, against curl and aria2 at the same origin in the same
//! run. Run by `cargo bench --bench get`; the origin is Debian's nginx.
//!
//! They take turns, round by round, and what is printed are medians; the ratios are what counts. Each writes a new file on the
//! same disk. CPU is that of the client's process, as the system counts it of children that ended (hundredths of a second).
//!
//! With `--neighbour` it also brings the file as a member of a swarm, from a supernode that has it. What that may take is the
//! engine's own figure: `cargo bench --bench transfer -- --only engine --link loopback`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, reason = "it talks to people")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use common::digest::Hasher;
use rand::{RngCore as _, SeedableRng as _};
use tempfile::TempDir;

const LONGSHORE: &str = env!("CARGO_BIN_EXE_longshore");
const MIB: u64 = 1024 * 1024;

/// Measures fetches of one file from one origin, in MB/s and CPU seconds per GB.
#[derive(Parser, Debug)]
struct Options {
    /// Size of the file, in MiB.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds; one more goes before them and is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Also from a neighbour that has it.
    #[arg(long)]
    neighbour: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The origin, or a supernode; it ends when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One way to fetch.
struct Way {
    name: &'static str,
    arguments: Vec<String>,
    /// Seconds, and CPU seconds, of each round.
    rounds: Vec<(f64, f64)>,
}

fn main() {
    let options = Options::parse();
    let home = TempDir::new().unwrap();
    let digest = content(home.path(), options.size);
    let (origin, url) = serve(home.path()).expect("nginx does not listen");
    let out = home.path().join("out");
    let mut ways = ways(&url, &digest, &out);
    let supernode =
        options.neighbour.then(|| supernode(home.path(), &url).expect("the supernode does not begin"));
    if let Some((_, flags)) = &supernode {
        let arguments = [&ways[1].arguments[..], flags].concat();
        ways.push(Way { name: "longshore get, neighbour", arguments, rounds: Vec::new() });
    }
    for round in 0..=options.runs {
        for way in &mut ways {
            let took = fetch(way, &out);
            if round > 0 {
                way.rounds.push(took);
            }
        }
    }
    drop((origin, supernode));
    report(&mut ways, (options.size * MIB) as f64);
}

/// A file of noise; its digest.
fn content(home: &Path, mib: u64) -> String {
    let (mut noise, mut hasher) = (rand::rngs::SmallRng::seed_from_u64(1), Hasher::new());
    std::fs::create_dir(home.join("files")).unwrap();
    let mut file = std::fs::File::create(home.join("files/big")).unwrap();
    let mut bytes = vec![0; MIB as usize];
    for _ in 0..mib {
        noise.fill_bytes(&mut bytes);
        hasher.update(&bytes);
        file.write_all(&bytes).unwrap();
    }
    hasher.finish().to_string()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether it is so within ten seconds.
fn eventually(is_so: impl Fn() -> bool) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        is_so()
    })
}

/// A supernode, and what makes a `get` a member of its swarms. It has the file after the round that is not counted.
fn supernode(home: &Path, url: &str) -> Option<(Server, Vec<String>)> {
    let (data, quic, http) = (home.join("supernode"), free_address().to_string(), free_address());
    let origin = url.trim_start_matches("http://").trim_end_matches("/big");
    let mut command = Command::new(LONGSHORE);
    command.args(["supernode", "--origin-allow", origin, "--quic-listen", &quic]);
    command.args(["--http-listen", &http.to_string(), "--data-dir"]).arg(&data);
    let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let token = data.join("join-token");
    let begun = eventually(|| token.exists() && TcpStream::connect(http).is_ok());
    let flags = ["--supernode", &quic, "--join-token-file", &token.display().to_string()];
    begun.then(|| (server, flags.map(str::to_owned).to_vec()))
}

fn serve(home: &Path) -> Option<(Server, String)> {
    let at = home.display();
    let address = free_address();
    let settings = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/log;\nevents {{}}\nhttp {{\naccess_log off;\nsendfile on;\n\
         server {{ listen {address}; root {at}/files; }}\n}}\n"
    );
    std::fs::write(home.join("nginx.conf"), settings).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(home.join("nginx.conf")).arg("-e").arg(home.join("log"));
    let child = command.spawn().expect("nginx: install Debian's package nginx-light");
    let nginx = Server(child);
    eventually(|| TcpStream::connect(address).is_ok()).then(|| (nginx, format!("http://{address}/big")))
}

fn ways(url: &str, digest: &str, out: &Path) -> Vec<Way> {
    let (out, folder) = (out.display().to_string(), out.parent().unwrap().display().to_string());
    let way = |name, arguments: &[&str]| Way {
        name,
        arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        rounds: Vec::new(),
    };
    let get = [LONGSHORE, "get", "-q", "-o", &out, "--data-dir", &folder, url];
    let mut ways = vec![
        way("curl -o", &["curl", "-s", "-o", &out, url]),
        way("longshore get", &get),
        way("longshore get --digest", &[&get[..], &["--digest", digest]].concat()),
    ];
    if Command::new("aria2c").arg("--version").stdout(Stdio::null()).status().is_ok() {
        ways.push(way("aria2c -x4 -s4", &["aria2c", "-q", "-x4", "-s4", "-d", &folder, "-o", "out", url]));
    }
    ways
}

/// Seconds, and CPU seconds.
fn fetch(way: &Way, out: &Path) -> (f64, f64) {
    let _ = std::fs::remove_file(out);
    let (before, begun) = (cpu_of_children(), Instant::now());
    let mut command = Command::new(&way.arguments[0]);
    let ended = command.args(&way.arguments[1..]).stdout(Stdio::null()).status();
    let took = begun.elapsed().as_secs_f64();
    assert!(ended.expect("it is installed").success(), "{} failed", way.name);
    (took, cpu_of_children() - before)
}

/// CPU seconds of this process's children that ended: proc_pid_stat(5), `cutime` and `cstime`, in ticks of 1/100 s.
fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [13, 14].map(|field| fields[field].parse::<f64>().unwrap()).iter().sum::<f64>() / 100.0
}

fn report(ways: &mut [Way], bytes: f64) {
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let figures: Vec<(f64, f64)> = ways
        .iter()
        .map(|way| {
            let (seconds, cpu) = way.rounds.iter().copied().unzip();
            (bytes / 1e6 / median(seconds), median(cpu) / (bytes / 1e9))
        })
        .collect();
    println!("{:24} {:>8} {:>9} {:>10} {:>9}", "what", "MB/s", "of curl", "CPU s/GB", "of curl");
    for (way, (speed, cpu)) in ways.iter().zip(&figures) {
        let (of_speed, of_cpu) = (speed / figures[0].0, cpu / figures[0].1);
        println!("{:24} {speed:8.0} {of_speed:9.2} {cpu:10.2} {of_cpu:9.2}", way.name);
    }
}
