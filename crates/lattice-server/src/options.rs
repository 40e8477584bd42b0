//! Choices of who runs the server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::store::{QueueOrder, Recovery};

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub addresses: Vec<SocketAddr>,
    /// Who may ask.
    pub access: Access,
    /// Certificate and key, to be asked through TLS only.
    pub tls: Option<TlsFiles>,
    /// Most connections at a time; others are closed at once.
    pub max_connections: usize,
    /// Largest request body, in bytes.
    pub max_upload: u64,
    /// Folder of a front end; without it there is a small page of our own.
    pub front_end: Option<PathBuf>,
    /// Whether there are several users, who say who they are.
    pub several_users: bool,
    /// Whether texts are compressed for clients that can take that.
    pub compress: bool,
    /// Where the queue and the history live.
    pub queue: QueuePlace,
    /// Which prompt runs next; none leaves it as it was last set.
    pub order: Option<QueueOrder>,
    /// What becomes of a prompt that was running when the program last ended.
    pub recovery: Recovery,
    /// Most entries of the history; older ones are dropped.
    pub history_limit: usize,
    /// How long a running prompt may go on when the server is told to stop; then it goes back into the queue.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 8188))],
            access: Access::default(),
            tls: None,
            max_connections: 4096,
            max_upload: 100 << 20,
            front_end: None,
            several_users: false,
            compress: false,
            queue: QueuePlace::default(),
            order: None,
            recovery: Recovery::RunAgain,
            history_limit: 100_000,
            grace: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Whether clients must show a key.
    pub fn asks_for_keys(&self) -> bool {
        self.access.always_keys || (!self.local() && !self.access.open)
    }

    /// Whether only this machine can connect.
    pub fn local(&self) -> bool {
        self.addresses.iter().map(SocketAddr::ip).all(|ip| match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
            }
        })
    }
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Origin whose pages may use the server (`*`: all); without it only its own pages may.
    pub cors: Option<String>,
    /// Names that the server is reached by, beside those of the machine itself.
    pub hosts: Vec<String>,
    /// Serve other machines without asking for a key.
    pub open: bool,
    /// Ask for a key even if only this machine can connect.
    pub always_keys: bool,
}

/// Files for TLS, in PEM form.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate, and those it is signed by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where the queue and the history live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePlace {
    /// In a file: they survive the end of the process and power cuts.
    #[default]
    Disk,
    /// In memory, as long as the process lives.
    Memory,
}
