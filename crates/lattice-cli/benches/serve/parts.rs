//! What is measured.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};
use tungstenite::Message;

use super::client::{Listeners, small, socket};
use super::server::Server;
use super::{report, timed};

/// From the start of the process to its first answer, and the memory it then holds.
pub(super) fn start() {
    let once = || timed(|| Server::new(&[]));
    let (servers, times): (Vec<Server>, Vec<Duration>) = (0..20).map(|_| once()).unzip();
    report("start to first answer", times, " (target: 100)");
    std::thread::sleep(Duration::from_secs(1));
    let idle = servers.iter().map(|server| server.memory().0).fold(0.0, f64::max);
    println!("memory when idle: {idle:.1} MB (target: 60)");
    let server = &servers[0];
    server.connection().get("/object_info");
    println!("after /object_info was read: {:.1} MB", server.memory().0);
}

/// From sending a prompt to `executed`.
pub(super) fn latency() {
    for (what, options, target) in [
        ("prompt to executed, durable queue", &[][..], " (target: 3.4)"),
        ("prompt to executed, --memory-queue", &["--memory-queue"][..], " (target: 1)"),
    ] {
        let server = Server::new(options);
        let (mut socket, _) =
            tungstenite::connect(format!("ws://{}/ws?clientId=me", server.address)).unwrap();
        let mut connection = server.connection();
        let mut once = |color: usize| {
            let body = small(color, "me");
            let start = Instant::now();
            connection.send("POST", "/prompt", &body);
            let mut executed = None;
            // The next prompt is sent when this one is over.
            loop {
                let Message::Text(text) = socket.read().unwrap() else { continue };
                if executed.is_none() && text.contains("\"executed\"") {
                    executed = Some(start.elapsed());
                }
                if text.contains("\"node\":null") {
                    break;
                }
            }
            connection.answer();
            executed.unwrap()
        };
        for color in 0..100 {
            once(color);
        }
        let times = (100..700).map(&mut once).collect();
        report(what, times, target);
    }
}

/// Chains of nodes.
pub(super) fn chain() {
    for nodes in [1000, 2000, 5000, 10_000] {
        let server = Server::new(&["--memory-queue"]);
        let mut connection = server.connection();
        let mut prompt = Map::new();
        let image = json!({"width": 8, "height": 8, "batch_size": 1, "color": 7});
        prompt.insert("0".into(), json!({"class_type": "EmptyImage", "inputs": image}));
        for index in 1..nodes - 1 {
            let inputs = json!({"image": [(index - 1).to_string(), 0]});
            prompt.insert(index.to_string(), json!({"class_type": "ImageInvert", "inputs": inputs}));
        }
        let inputs = json!({"images": [(nodes - 2).to_string(), 0], "filename_prefix": "chain"});
        prompt.insert("end".into(), json!({"class_type": "SaveImage", "inputs": inputs}));
        let body = json!({"prompt": prompt, "prompt_id": "chain", "client_id": "me"}).to_string();
        let (mut me, _) = tungstenite::connect(format!("ws://{}/ws?clientId=me", server.address)).unwrap();
        let start = Instant::now();
        connection.post("/prompt", &body);
        let accepted = start.elapsed();
        while !me.read().unwrap().to_text().is_ok_and(|text| text.contains("\"node\":null")) {}
        let all = start.elapsed();
        let entry: Json = serde_json::from_slice(&connection.get("/history/chain")).unwrap();
        assert_eq!(entry["chain"]["status"]["completed"], true);
        let each = all.as_secs_f64() * 1e6 / f64::from(nodes);
        println!(
            "chain of {nodes} nodes: accepted in {:.1} ms, over after {:.1} ms, {each:.1} us per node, {:.0} MB",
            accepted.as_secs_f64() * 1e3,
            all.as_secs_f64() * 1e3,
            server.memory().1
        );
    }
}

/// Sends prompts on some connections, each as soon as the one before is answered, and waits until all have run.
fn flood(
    server: &Server,
    prompts: usize,
    connections: usize,
    client_id: &(dyn Fn(usize) -> String + Sync),
) -> (Duration, Duration) {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = server.connection();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= prompts {
                        break;
                    }
                    connection.post("/prompt", &small(index, &client_id(index)));
                }
            });
        }
    });
    let accepted = start.elapsed();
    let mut connection = server.connection();
    while connection.remaining() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    (accepted, start.elapsed())
}

/// Prompts per second while 100 clients listen.
pub(super) fn throughput() {
    const PROMPTS: usize = 4000;
    let server = Server::new(&[]);
    let listeners = Listeners::new(&server.address, 100);
    let (accepted, all) = flood(&server, PROMPTS, 4, &|_| "listener-0".into());
    println!(
        "{PROMPTS} prompts, 100 clients: accepted at {:.0} a second, run at {:.0} a second (target: 200); {:.0} MB at most, {:.0} MB sent",
        PROMPTS as f64 / accepted.as_secs_f64(),
        PROMPTS as f64 / all.as_secs_f64(),
        server.memory().1,
        listeners.megabytes()
    );
}

/// 1,000 clients, some of which never read, and 10,000 prompts.
pub(super) fn crowd() {
    const PROMPTS: usize = 10_000;
    let server = Server::new(&[]);
    let listeners = Listeners::new(&server.address, 1000);
    let slow: Vec<_> = (0..5).map(|index| socket(&server.address, &format!("slow-{index}"))).collect();
    let connected = server.memory().0;
    let owner = |index: usize| format!("slow-{}", index % slow.len());
    let (accepted, all) = flood(&server, PROMPTS, 4, &owner);
    println!(
        "{PROMPTS} prompts, 1000 clients, 5 that never read: accepted at {:.0} a second, run at {:.0} a second; {connected:.0} MB before, {:.0} MB at most; {:.0} MB sent",
        PROMPTS as f64 / accepted.as_secs_f64(),
        PROMPTS as f64 / all.as_secs_f64(),
        server.memory().1,
        listeners.megabytes()
    );
}

/// Pages of a long history.
pub(super) fn history() {
    const ENTRIES: usize = 100_000;
    let base = tempfile::tempdir().unwrap();
    {
        let server = Server::at(base.path(), &[]);
        flood(&server, 1, 1, &|_| "me".into());
    }
    let mut database = rusqlite::Connection::open(base.path().join("user/queue.sqlite")).unwrap();
    let entry: String = database.query_row("SELECT entry FROM history_entry", [], |row| row.get(0)).unwrap();
    let tx = database.transaction().unwrap();
    for index in 1..ENTRIES {
        tx.prepare_cached("INSERT INTO history (prompt_id) VALUES (?)")
            .unwrap()
            .execute([format!("p{index}")])
            .unwrap();
        let sql = "INSERT INTO history_entry (seq, entry) VALUES (last_insert_rowid(), ?)";
        tx.prepare_cached(sql).unwrap().execute([&entry]).unwrap();
    }
    tx.commit().unwrap();
    drop(database);
    let (server, start) = timed(|| Server::at(base.path(), &[]));
    println!("start with {ENTRIES} entries in the history: {:.1} ms", start.as_secs_f64() * 1e3);
    let mut connection = server.connection();
    for path in [
        "/history?max_items=64",
        "/history?max_items=64&offset=0",
        "/history?max_items=64&offset=50000",
        "/history?max_items=64&offset=99936",
        "/history/p50000",
    ] {
        let times = (0..100).map(|_| timed(|| connection.get(path)).1).collect();
        report(path, times, "");
    }
}
