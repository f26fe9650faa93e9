//! The proxy with a warm blob, Debian's `docker-registry` with the same file, and a client that throws away what it
//! reads.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::piece::ByteRange;
use futures_util::StreamExt as _;
use peer::coordinator::Nobody;
use peer::origin::OriginOptions;
use proxy::{Proxy, ProxyOptions};
use tokio::net::TcpListener;

use crate::child::{Process, Task, say, wait_for_end, wait_for_word};
use crate::engine;
use crate::lab::Lab;
use crate::link::{End, Link};

/// The name under which the proxy knows the registry.
const NAME: &str = "registry.bench";
const PROGRAM: &str = "docker-registry";
/// What it says once it listens; the address follows.
const LISTENING: &str = "listening on ";
/// It starts in a fraction of this.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

pub(crate) struct Registry {
    process: std::process::Child,
    address: String,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn is_installed() -> bool {
        Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    pub(crate) fn start(lab: &Lab, link: &Link) -> Self {
        let home = lab.registry();
        let (config, log) = (home.join("config.yml"), home.join("log"));
        let settings = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}/store}}}}\nhttp: {{addr: '{}:0'}}\n",
            home.display(),
            link.local(End::Server),
        );
        fs::write(&config, settings).unwrap();
        let out = File::create(&log).unwrap();
        let err = out.try_clone().unwrap();
        let mut command = link.command(End::Server, PROGRAM);
        let process = command.arg("serve").arg(&config).stdout(out).stderr(err).spawn().unwrap();
        let begun = Instant::now();
        let address = loop {
            let said = fs::read_to_string(&log).unwrap();
            let address = said.split(LISTENING).nth(1).and_then(|text| {
                let end = text.find(|next: char| !next.is_ascii_digit() && !".:".contains(next))?;
                Some(text[..end].to_owned())
            });
            if let Some(address) = address {
                break address;
            }
            assert!(begun.elapsed() < START_LIMIT, "{PROGRAM} does not start:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { process, address }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Process for Registry {
    fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The proxy over the store that holds the content. What lay on the disk is hashed when it is read for the first time:
/// that happens before (`looked_at`), or is part of the measurement.
pub(crate) fn serve(task: &Task, looked_at: bool) {
    engine::runtime().block_on(async {
        let registries = [(NAME.to_owned(), format!("http://{}", task.other))].into();
        let origin = OriginOptions { registries, ..OriginOptions::default() };
        let engine = engine::start_with(&task.lab, "parent", None, Arc::new(Nobody), origin);
        if looked_at {
            let handle = engine.local(task.lab.task()).await.unwrap().unwrap();
            let mut bytes = std::pin::pin!(handle.read(ByteRange::new(0, handle.length())));
            while let Some(chunk) = bytes.next().await {
                chunk.unwrap();
            }
        }
        let options = ProxyOptions { default_registry: NAME.to_owned(), ..ProxyOptions::default() };
        let router = Proxy::new(engine.clone(), options).expect("a proxy").router();
        let listener = TcpListener::bind(task.local).await.unwrap();
        say(listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        tokio::task::spawn_blocking(wait_for_end).await.unwrap();
        engine.close().await;
    });
}

/// A client: asks for `HOST:PORT/PATH`, and reads.
pub(crate) fn receive(task: &Task) {
    let (host, path) = task.other.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    say("ready");
    wait_for_word();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let (mut head, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    let mut left = loop {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "no answer");
        head.extend_from_slice(&buffer[..read]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head[..end]));
            break task.lab.geometry.length() - (head.len() - end - 4) as u64;
        }
    };
    while left > 0 {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the answer ended early");
        left -= read as u64;
    }
    say("done");
    wait_for_end();
}
