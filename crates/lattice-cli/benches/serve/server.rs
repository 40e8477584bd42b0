//! The program, serving a folder of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::client::Connection;

/// A server, ended when dropped.
pub(super) struct Server {
    process: Child,
    pub(super) address: String,
    base: Option<TempDir>,
}

impl Server {
    /// In a new folder. `TMPDIR` says where: a folder in memory knows no syncs.
    pub(super) fn new(options: &[&str]) -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut server = Self::at(base.path(), options);
        server.base = Some(base);
        server
    }

    /// In a folder, answering.
    pub(super) fn at(base: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lattice"))
            .args(["serve", "--port", "0", "--base-dir"])
            .arg(base)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("://").expect("the address is printed").1.to_owned();
        let server = Self { process, address, base: None };
        server.connection().get("/prompt");
        server
    }

    pub(super) fn connection(&self) -> Connection {
        Connection::open(&self.address)
    }

    /// Megabytes that the process holds: now, and at most so far.
    pub(super) fn memory(&self) -> (f64, f64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib: f64 =
                line.and_then(|l| l.trim_end_matches("kB").trim().parse().ok()).unwrap_or(f64::NAN);
            kib / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
