//! Killed at random moments during a stream of prompts, the server loses nothing and does nothing twice.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::client::{Server, eventually};
use crate::common::{pixels, project};

/// Kills in a usual run; `LATTICE_KILLS` says otherwise (200 take a few minutes).
const KILLS: u64 = 15;

/// One in so many prompts samples with the built-in model.
const SAMPLING: u64 = 12;

/// Every prompt that was sent, and whether the answer came before the kill.
type Sent = BTreeMap<String, bool>;

#[test]
fn kills_lose_nothing_and_double_nothing() {
    let kills = std::env::var("LATTICE_KILLS").map_or(KILLS, |n| n.parse().expect("a number of kills"));
    let base = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed);
    let sent = Mutex::new(Sent::new());
    for _ in 0..kills {
        let server = Server::start(base.path(), &[]);
        nothing_missing(&server, &sent.lock().unwrap());
        let (address, stop) = (server.address.clone(), AtomicBool::new(false));
        let moment = Duration::from_micros(random.below(250_000));
        let mut posts = random.fork();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    post_one(&address, &mut posts, &sent);
                    std::thread::sleep(Duration::from_micros(posts.below(20_000)));
                }
            });
            std::thread::sleep(moment);
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        intact(base.path());
    }
    let server = Server::start(base.path(), &[]);
    let sent = sent.into_inner().unwrap();
    nothing_missing(&server, &sent);
    eventually(|| (server.get_json("/prompt")["exec_info"]["queue_remaining"] == 0).then_some(()));
    let history = server.get_json("/history");
    server.kill();
    intact(base.path());
    check_outputs(base.path(), &sent, history.as_object().unwrap());
    assert!(sent.values().any(|&answered| answered), "no prompt was taken at all");
}

/// Sends a prompt that saves one picture under a name of its own.
fn post_one(address: &str, random: &mut Random, sent: &Mutex<Sent>) {
    let number = sent.lock().unwrap().len();
    let id = format!("p{number:06}");
    let prompt =
        if random.below(SAMPLING) == 0 { sampling(&id, random.below(1 << 20)) } else { plain(&id, random) };
    let body = json!({ "prompt": prompt, "prompt_id": id, "client_id": "crash" }).to_string();
    // Noted before it is sent: a prompt may be taken though the answer does not come.
    sent.lock().unwrap().insert(id.clone(), false);
    if answered(address, &body).unwrap_or(false) {
        sent.lock().unwrap().insert(id, true);
    }
}

fn answered(address: &str, body: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    write!(
        stream,
        "POST /prompt HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

fn plain(id: &str, random: &mut Random) -> Json {
    let (size, pictures) = (16 + random.below(200), 1 + random.below(2));
    json!({
        "1": {"class_type": "EmptyImage",
              "inputs": {"width": size, "height": size, "batch_size": pictures, "color": random.below(1 << 24)}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": id}},
    })
}

fn sampling(id: &str, seed: u64) -> Json {
    let example = std::fs::read(project("examples/emoji.json")).unwrap();
    let mut prompt: Json = serde_json::from_slice(&example).unwrap();
    prompt["3"]["inputs"]["steps"] = 1.into();
    prompt["3"]["inputs"]["seed"] = seed.into();
    prompt["5"]["inputs"]["width"] = 64.into();
    prompt["5"]["inputs"]["height"] = 64.into();
    prompt["9"]["inputs"]["filename_prefix"] = id.into();
    prompt
}

/// Every answered prompt waits, runs or has ended, in one place only, and those that wait are in order.
fn nothing_missing(server: &Server, sent: &Sent) {
    // The queue is read first: what ends in between is in the history then.
    let queue = server.get_json("/queue");
    let history = server.get_json("/history");
    let waiting = queue["queue_pending"].as_array().unwrap();
    let numbers: Vec<f64> = waiting.iter().map(|item| item[0].as_f64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let mut places: HashMap<&str, usize> = HashMap::new();
    for item in waiting.iter().chain(queue["queue_running"].as_array().unwrap()) {
        *places.entry(item[1].as_str().unwrap()).or_default() += 1;
    }
    for (id, _) in sent.iter().filter(|(_, answered)| **answered) {
        let queued = places.get(id.as_str()).copied().unwrap_or(0);
        assert!(queued <= 1, "{id} is queued {queued} times");
        assert!(queued == 1 || history.get(id).is_some(), "{id} has vanished");
    }
}

/// The database is whole.
fn intact(base: &Path) {
    let database = rusqlite::Connection::open(base.join("user/queue.sqlite")).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

/// Each prompt that was taken has ended well and saved what it should once; there is nothing else.
fn check_outputs(base: &Path, sent: &Sent, history: &serde_json::Map<String, Json>) {
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(base.join("output")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (id, _) = name.split_once('_').unwrap_or_else(|| panic!("{name} is nobody's"));
        assert!(pixels(&path).0 >= 16, "{name}");
        *files.entry(id.to_owned()).or_default() += 1;
    }
    for (id, entry) in history {
        assert_eq!(entry["status"]["completed"], true, "{id}");
        let graph = &entry["prompt"][2];
        let pictures = graph["1"]["inputs"]["batch_size"].as_u64().unwrap_or(1) as usize;
        assert_eq!(files.remove(id), Some(pictures), "{id}");
        let named =
            entry["outputs"].as_object().unwrap().values().next().unwrap()["images"].as_array().unwrap();
        for image in named {
            assert!(base.join("output").join(image["filename"].as_str().unwrap()).exists(), "{image}");
        }
    }
    assert!(files.is_empty(), "files of prompts that are not in the history: {files:?}");
    for (id, _) in sent.iter().filter(|(_, answered)| **answered) {
        assert!(history.contains_key(id), "{id} has vanished");
    }
}

/// Marsaglia's xorshift, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn fork(&mut self) -> Self {
        Self(self.next() | 1)
    }
}
