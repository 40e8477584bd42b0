//! Clients that cost little themselves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};
use tokio::io::AsyncReadExt;

/// An HTTP connection that is kept open.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Connection {
    pub(super) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), address: address.to_owned() }
    }

    pub(super) fn get(&mut self, path: &str) -> Vec<u8> {
        self.send("GET", path, "");
        self.answer()
    }

    pub(super) fn post(&mut self, path: &str, body: &str) -> Vec<u8> {
        self.send("POST", path, body);
        self.answer()
    }

    pub(super) fn send(&mut self, method: &str, path: &str, body: &str) {
        let (host, length) = (&self.address, body.len());
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The body of the next answer, which must be a good one.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        body
    }

    /// How many prompts wait or run.
    pub(super) fn remaining(&mut self) -> u64 {
        let answer: Json = serde_json::from_slice(&self.get("/prompt")).unwrap();
        answer["exec_info"]["queue_remaining"].as_u64().unwrap()
    }
}

/// EmptyImage of 64x64 pixels into SaveImage; another colour for each, so that nothing is cached.
pub(super) fn small(color: usize, client_id: &str) -> String {
    json!({
        "client_id": client_id,
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
        },
    })
    .to_string()
}

/// Opens a WebSocket by hand; what comes is up to the caller.
pub(super) fn socket(address: &str, client_id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /ws?clientId={client_id} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert!(head.ends_with(b"101"), "{head:?}");
    stream
}

/// Clients that read and throw away.
pub(super) struct Listeners {
    bytes: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl Listeners {
    pub(super) fn new(address: &str, count: usize) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build().unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        for index in 0..count {
            let stream = socket(address, &format!("listener-{index}"));
            stream.set_nonblocking(true).unwrap();
            let bytes = bytes.clone();
            runtime.spawn(async move {
                let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let mut buffer = vec![0; 16 << 10];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        Self { bytes, _runtime: runtime }
    }

    /// Megabytes they got.
    pub(super) fn megabytes(&self) -> f64 {
        self.bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20)
    }
}
