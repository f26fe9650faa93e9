//! A real web server that shows its folders as pages of links.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;
use super::process::Process;

/// The server; it ends when it is dropped.
pub(crate) struct Nginx {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    _process: Process,
    root: TempDir,
}

// === impl Nginx ===

impl Nginx {
    pub(crate) async fn start() -> Self {
        let root = TempDir::new().unwrap();
        let at = root.path().display().to_string();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        for folder in ["files", "temp"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String =
            temporary.iter().map(|kind| format!("{kind}_temp_path {at}/temp/{kind};\n")).collect();
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let settings = format!(
            "{user}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/log;\nevents {{}}\nhttp {{\naccess_log {at}/accesses;\n\
             {temporary}server {{ listen {address}; root {at}/files; autoindex on; }}\n}}\n"
        );
        let file = root.path().join("nginx.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(root.path().join("log"));
        let process = Process::spawn("nginx", &mut command, &root.path().join("said"));
        eventually("nginx listening", async || TcpStream::connect(&address).await.ok()).await;
        Self { url: format!("http://{address}"), _process: process, root }
    }

    /// The folder that it shows.
    pub(crate) fn files(&self) -> PathBuf {
        self.root.path().join("files")
    }
}
