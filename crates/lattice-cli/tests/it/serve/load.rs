//! Many clients, many prompts, and clients that do not read.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tungstenite::Message;

use super::client::{Server, eventually};

const CLIENTS: usize = 100;
const PROMPTS: usize = 500;
const SENDERS: usize = 4;

/// More than the server may hold at any time of this, in MB; what clients are owed would be a multiple.
#[cfg(target_os = "linux")]
const MEMORY: u64 = 400;

fn small(color: usize, client_id: &str) -> Json {
    json!({
        "client_id": client_id,
        "prompt_id": format!("p{color}"),
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "load"}},
        },
    })
}

#[test]
fn everybody_is_served_whoever_does_not_read() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &[]);
    // One in ten never reads.
    let mut sockets: Vec<_> = (0..CLIENTS).map(|client| server.socket(&format!("c{client}"))).collect();
    let readers: Vec<_> = (0..CLIENTS)
        .rev()
        .filter(|client| client % 10 != 0)
        .map(|client| (client, sockets.remove(client)))
        .collect();
    let heard = std::thread::scope(|scope| {
        let readers: Vec<_> = readers
            .into_iter()
            .map(|(client, mut socket)| {
                scope.spawn(move || {
                    // Those prompts of its own, and only those.
                    let mut own: HashSet<String> =
                        (0..PROMPTS).filter(|p| p % CLIENTS == client).map(|p| format!("p{p}")).collect();
                    let mut executed = 0;
                    while !own.is_empty() {
                        let message = socket.next_json();
                        let data = &message["data"];
                        executed += usize::from(message["type"] == "executed");
                        if message["type"] == "executing" && data["node"].is_null() {
                            assert!(own.remove(data["prompt_id"].as_str().unwrap()), "{message}");
                        }
                    }
                    executed
                })
            })
            .collect();
        for sender in 0..SENDERS {
            let server = &server;
            scope.spawn(move || {
                for prompt in (sender..PROMPTS).step_by(SENDERS) {
                    server.queue(&small(prompt, &format!("c{}", prompt % CLIENTS)));
                }
            });
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<usize>()
    });
    assert_eq!(heard, PROMPTS / 10 * 9);
    eventually(|| (server.get_json("/prompt")["exec_info"]["queue_remaining"] == 0).then_some(()));
    let history = server.get_json("/history");
    assert_eq!(history.as_object().unwrap().len(), PROMPTS);
    assert!(history.as_object().unwrap().values().all(|entry| entry["status"]["completed"] == true));
    assert_eq!(std::fs::read_dir(base.path().join("output")).unwrap().count(), PROMPTS);
    #[cfg(target_os = "linux")]
    assert!(server.peak_memory() < MEMORY, "{} MB", server.peak_memory());
}

/// A picture that no compression makes smaller.
fn noise(side: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let data = (0..side * side * 3).map(|_| byte()).collect();
    lattice_media::png::encode(
        &lattice_media::Pixels { width: side, height: side, channels: 3, data },
        &[],
        1,
    )
    .unwrap()
}

/// Pictures of 3 MB, more than are ever kept for a client and lie in the system's buffers.
const PICTURES: usize = 28;

#[test]
fn who_falls_behind_is_told_how_things_stand() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("input")).unwrap();
    std::fs::write(base.path().join("input/noise.png"), noise(1024)).unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let run = |client_id: &str, amount: usize| {
        let prompt = json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "noise.png"}},
            "2": {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": amount}},
            "3": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}},
        });
        server.queue(&json!({"prompt": prompt, "client_id": client_id}))
    };
    let pictures = |messages: &[Message]| messages.iter().filter(|message| message.is_binary()).count();

    let mut reader = server.socket("reader");
    let id = run("reader", 2);
    assert_eq!(pictures(&reader.until_over(&id)), 2, "who reads gets all");

    let mut slow = server.socket("slow");
    let id = run("slow", PICTURES);
    server.ended(&id);
    // Only now does it begin to read.
    std::thread::sleep(Duration::from_millis(100));
    let messages = slow.until_over(&id);
    let got = pictures(&messages);
    assert!(got < PICTURES, "{got} pictures were kept for it");
    let last = messages.iter().rposition(Message::is_binary).unwrap_or(0);
    let resync = messages[last..].iter().any(|m| m.to_text().is_ok_and(|text| text.contains("\"status\"")));
    assert!(resync, "it is told how long the queue is");
    // And it goes on as any other.
    let id = server.queue(&small(1, "slow"));
    assert!(slow.until_over(&id).iter().any(|m| m.to_text().is_ok_and(|text| text.contains("\"executed\""))));
}
