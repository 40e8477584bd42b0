//! A running server, and plain clients of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program serving a folder, ended when dropped.
pub(crate) struct Server {
    process: Child,
    /// Reads what the program complains of; true if it panicked.
    complaints: Option<JoinHandle<bool>>,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(base: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lattice"))
            .arg("serve")
            .args(["--port", "0", "--base-dir"])
            .arg(base)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = process.stderr.take().unwrap();
        let complaints = Some(std::thread::spawn(move || pass_on(stderr)));
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("://").expect("the address is printed").1.to_owned();
        Self { process, complaints, address }
    }

    /// Most memory that the process held so far, in MB.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    }

    /// SIGKILL: no handler runs.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM, and wait for the end.
    #[cfg(unix)]
    pub(crate) fn stop(self) -> std::process::ExitStatus {
        self.terminate();
        self.wait()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn get_json(&self, path: &str) -> Json {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    }

    pub(crate) fn post(&self, path: &str, body: &Json) -> Answer {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// The answer to a JSON body, which is no failure.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Json) -> Json {
        let answer = self.request(method, path, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        if answer.body.is_empty() { Json::Null } else { answer.json() }
    }

    /// SIGTERM.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
    }

    /// Waits for the end.
    #[cfg(unix)]
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.process.wait().unwrap()
    }

    /// Queues a prompt and returns its id.
    pub(crate) fn queue(&self, body: &Json) -> String {
        let answer = self.post("/prompt", body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["prompt_id"].as_str().unwrap().to_owned()
    }

    /// The history entry of a prompt, once it has ended.
    pub(crate) fn ended(&self, prompt_id: &str) -> Json {
        let path = format!("/history/{prompt_id}");
        eventually(|| Some(self.get_json(&path)[prompt_id].take()).filter(|entry| !entry.is_null()))
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n").into_bytes();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            write!(head, "Host: {}\r\n", self.address).unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&head).unwrap();
        // A server that refuses a body need not read it.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer)
    }

    /// Listens to `/events`, with a query and headers.
    pub(crate) fn events(&self, query: &str, headers: &[(&str, &str)]) -> Events {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /events{query} HTTP/1.0\r\nHost: {}\r\n", self.address).unwrap();
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n").unwrap();
        }
        stream.write_all(b"\r\n").unwrap();
        let mut events = Events(BufReader::new(stream));
        let status = events.line().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        let headers: Vec<String> =
            std::iter::from_fn(|| events.line().filter(|line| !line.is_empty())).collect();
        assert!(headers.iter().any(|line| line.to_lowercase() == "content-type: text/event-stream"));
        events
    }

    pub(crate) fn socket(&self, client_id: &str) -> Socket {
        Socket::connect(&format!("ws://{}/ws?clientId={client_id}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let panicked = self.complaints.take().is_some_and(|complaints| complaints.join().unwrap_or(true));
        assert!(!panicked || std::thread::panicking(), "the server panicked");
    }
}

/// Prints the lines of a stream; true if one tells of a panic.
fn pass_on(stream: impl Read) -> bool {
    let mut panicked = false;
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        panicked |= line.contains("panicked at");
        eprintln!("{line}");
    }
    panicked
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a complete head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        };
        let answer = Self { status, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            let body = unchunk(&answer.body);
            return Self { body, ..answer };
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Json {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

/// A listener to Server-Sent Events.
pub(crate) struct Events(BufReader<TcpStream>);

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct ServerEvent {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: Json,
}

impl Events {
    /// The next line; None at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; None when the server has hung up.
    pub(crate) fn next(&mut self) -> Option<ServerEvent> {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => data.push_str(value),
                _ if line.is_empty() && !data.is_empty() => {
                    return Some(ServerEvent { id, kind, data: serde_json::from_str(&data).unwrap() });
                }
                _ => {}
            }
        }
    }

    /// Events up to one of a kind.
    pub(crate) fn until(&mut self, kind: &str) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &ServerEvent| event.kind != kind) {
            events.push(self.next().expect("the server goes on"));
        }
        events
    }
}

/// A WebSocket client.
pub(crate) struct Socket(WebSocket<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) fn connect(url: &str) -> Self {
        let (socket, _) = tungstenite::connect(url).unwrap();
        let MaybeTlsStream::Plain(stream) = socket.get_ref() else { unreachable!() };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).unwrap();
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Message {
        self.0.read().unwrap()
    }

    /// The next message, which is JSON.
    pub(crate) fn next_json(&mut self) -> Json {
        serde_json::from_str(self.next().to_text().unwrap()).unwrap()
    }

    /// Messages up to the one that ends a prompt.
    pub(crate) fn until_over(&mut self, prompt_id: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.next();
            let over =
                message.to_text().ok().and_then(|text| serde_json::from_str::<Json>(text).ok()).is_some_and(
                    |m| {
                        m["type"] == "executing"
                            && m["data"]["node"].is_null()
                            && m["data"]["prompt_id"] == prompt_id
                    },
                );
            messages.push(message);
            if over {
                return messages;
            }
        }
    }
}
