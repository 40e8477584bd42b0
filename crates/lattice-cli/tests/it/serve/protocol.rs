//! Rules of the HTTP and WebSocket interface.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value as Json, json};

use super::client::{Answer, Server};
use super::prompts::{endless, sampling, save, started};

fn types(messages: &[tungstenite::Message]) -> Vec<String> {
    let kind = |m: &tungstenite::Message| {
        let message: Json = serde_json::from_str(m.to_text().unwrap()).unwrap();
        message["type"].as_str().unwrap().to_owned()
    };
    messages.iter().map(kind).collect()
}

#[test]
fn routes_exist_twice_and_wrong_methods_are_told() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    for path in ["/prompt", "/queue", "/history", "/object_info/EmptyImage", "/features"] {
        assert_eq!(server.get(path).status, 200, "{path}");
        assert_eq!(server.get_json(path), server.get_json(&format!("/api{path}")), "{path}");
        let head = server.request("HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    let info = server.get_json("/object_info");
    assert!(info.as_object().unwrap().len() > 100);
    assert_eq!(server.get_json("/object_info/EmptyImage")["EmptyImage"], info["EmptyImage"]);
    assert_eq!(server.get_json("/object_info/Nothing"), json!({}));

    let put = server.request("PUT", "/prompt", &[], b"{}");
    assert_eq!((put.status, put.header("allow")), (405, Some("GET,HEAD,POST")));
    assert_eq!(put.body, b"405: Method Not Allowed");
    assert_eq!(server.request("DELETE", "/queue", &[], b"").status, 405);
    for path in ["/interrupt", "/free", "/nothing", "/api/nothing"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{path}");
    }
    assert_eq!(server.get("/ws").status, 400);
    let options = server.request("OPTIONS", "/anything", &[], b"");
    assert_eq!((options.status, options.body.len()), (200, 0));
}

#[test]
fn bodies_are_checked() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue", "--max-upload-size", "0.001"]);
    let post = |body: &str| server.request("POST", "/prompt", &[], body.as_bytes());
    let large = post(&" ".repeat(2000));
    assert_eq!(large.status, 413);
    assert_eq!(large.body, b"Maximum request body size 1049 exceeded.");
    for body in ["", "{", "\u{0}", &"[".repeat(1000), "{\"prompt\": 1}", "{\"prompt\": \"some string\"}"] {
        assert_eq!(post(body).status, 400, "{body}");
    }
    for body in ["[]", "\"text\"", "{}", "7"] {
        assert_eq!(post(body).json()["error"]["type"], "no_prompt", "{body}");
    }
    for body in ["{\"prompt\": {}}", "{\"prompt\": []}"] {
        assert_eq!(post(body).json()["error"]["type"], "prompt_no_outputs", "{body}");
    }
    for field in [
        "\"number\": \"x\"",
        "\"number\": null",
        "\"number\": 1e999",
        "\"extra_data\": 1",
        "\"prompt_id\": []",
    ] {
        assert_eq!(post(&format!("{{\"prompt\": {{}}, {field}}}")).status, 400, "{field}");
    }
    assert_eq!(server.request("POST", "/queue", &[], b"{\"delete\": 5}").status, 400);
    assert_eq!(server.get("/history?max_items=x").status, 400);
}

/// A client that tells no length beforehand goes on sending while it is refused, and reads the answer only then.
#[test]
fn a_body_without_a_length_is_limited_too() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue", "--max-upload-size", "1"]);
    let form = b"--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n";
    let requests =
        [("/prompt", "text/plain", &b""[..]), ("/upload/image", "multipart/form-data; boundary=x", form)];
    for (path, kind, start) in requests {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let host = &server.address;
        let head = "Transfer-Encoding: chunked\r\nConnection: close";
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n{head}\r\n\r\n")
            .unwrap();
        let piece = vec![b' '; 100_000];
        for piece in std::iter::once(start).chain(std::iter::repeat_n(&piece[..], 40)) {
            if !piece.is_empty() {
                write!(stream, "{:x}\r\n", piece.len()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = Answer::parse(&answer);
        assert_eq!(answer.status, 413, "{path}");
        assert_eq!(answer.body, b"Maximum request body size 1048576 exceeded.", "{path}");
    }
}

#[test]
fn numbers_order_the_queue() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let running = server.queue(&endless("other"));
    started(&server, &running);
    let queue = |fields: Json| {
        let mut body = save("n", "nobody");
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = server.post("/prompt", &body).json();
        (answer["prompt_id"].clone(), answer["number"].as_f64().unwrap())
    };
    assert_eq!(server.post("/prompt", &json!({"prompt": {}})).status, 400, "uses a number up");
    assert_eq!(queue(json!({"prompt_id": 5})), (json!("5"), 2.0));
    assert_eq!(queue(json!({"prompt_id": "late", "number": "3.5"})).1, 3.5);
    assert_eq!(queue(json!({"prompt_id": "b", "number": 2})).1, 2.0);
    assert_eq!(queue(json!({"prompt_id": "front", "front": true})).1, -3.0);
    let waiting = |server: &Server| -> Vec<Json> {
        let queue = server.get_json("/queue");
        queue["queue_pending"].as_array().unwrap().iter().map(|item| item[1].clone()).collect()
    };
    assert_eq!(waiting(&server), ["front", "5", "b", "late"]);
    assert_eq!(server.get_json("/prompt")["exec_info"]["queue_remaining"], 5);
    let item = server.get_json("/queue")["queue_pending"][1].clone();
    assert_eq!(item[3], json!({"client_id": "nobody"}));
    assert_eq!(item[4], json!(["2"]));

    assert_eq!(server.post("/queue", &json!({"delete": ["b", "unknown", running]})).status, 200);
    assert_eq!(waiting(&server), ["front", "5", "late"]);
    server.post("/queue", &json!({"clear": false}));
    assert_eq!(waiting(&server).len(), 3);
    server.post("/queue", &json!({"clear": true}));
    assert!(waiting(&server).is_empty());

    server.post("/interrupt", &json!({"prompt_id": "another"}));
    assert_eq!(server.get_json(&format!("/history/{running}")), json!({}));
    server.post("/interrupt", &json!({"prompt_id": running}));
    let entry = server.ended(&running);
    assert_eq!(entry["status"]["status_str"], "error");
    assert_eq!(entry["status"]["completed"], false);
    assert_eq!(entry["status"]["messages"].as_array().unwrap().last().unwrap()[0], "execution_interrupted");
}

#[test]
fn history_is_listed_and_forgotten() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut body = save("h", "nobody");
    body["extra_data"] = json!({"api_key_comfy_org": "secret", "note": "ü"});
    let ids: Vec<String> = (0..5).map(|_| server.queue(&body)).collect();
    let entry = server.ended(&ids[4]);
    assert_eq!(entry["prompt"][3], json!({"note": "ü", "client_id": "nobody"}));
    assert_eq!(entry["outputs"]["2"]["images"][0]["type"], "output");
    let listed = |query: &str| -> Vec<String> {
        server.get_json(&format!("/history{query}")).as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(listed(""), ids);
    assert_eq!(listed("?max_items=2"), ids[3..]);
    assert_eq!(listed("?max_items=2&offset=1"), ids[1..3]);
    assert_eq!(listed("?offset=2"), ids[2..]);
    assert!(listed("?max_items=0").is_empty());
    assert!(listed("?offset=100").is_empty());
    server.post("/history", &json!({"delete": [ids[1], "unknown"]}));
    assert_eq!(listed("").len(), 4);
    server.post("/history", &json!({"clear": true}));
    assert!(listed("").is_empty());
}

#[test]
fn owners_get_events_and_others_only_what_is_for_all() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut owner = server.socket("owner");
    let mut other = server.socket("other");
    assert_eq!(owner.next_json()["data"]["sid"], "owner");
    assert_eq!(other.next_json()["data"]["sid"], "other");
    let id = server.queue(&save("a", "owner"));
    let got = types(&owner.until_over(&id));
    assert_eq!(got.first().map(String::as_str), Some("status"));
    assert!(got.contains(&"executed".to_owned()));
    // The queue is taken up, taken from, and done with.
    let statuses: Vec<Json> = (0..3).map(|_| other.next_json()).collect();
    assert!(statuses.iter().all(|m| m["type"] == "status"), "{statuses:?}");

    // Without an owner, progress goes to all and the rest to nobody.
    let mut body = save("b", "");
    body.as_object_mut().unwrap().remove("client_id");
    server.queue(&body);
    let mut kinds = Vec::new();
    loop {
        let message = other.next_json();
        kinds.push(message["type"].as_str().unwrap().to_owned());
        if message["data"]["status"]["exec_info"]["queue_remaining"] == 0 {
            break;
        }
    }
    kinds.dedup();
    assert_eq!(kinds, ["status", "progress_state", "status"]);
}

#[test]
fn a_client_that_comes_back_is_told_where_its_prompt_is() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut first = server.socket("me");
    first.next();
    let id = server.queue(&endless("me"));
    while first.next_json()["type"] != "executing" {}
    let mut second = server.socket("me");
    assert_eq!(second.next_json()["data"]["sid"], "me");
    let executing = second.next_json();
    assert_eq!(executing["type"], "executing");
    assert_eq!(executing["data"].as_object().unwrap().len(), 1);
    server.post("/interrupt", &json!({}));
    let kinds = types(&second.until_over(&id));
    assert!(kinds.contains(&"execution_interrupted".to_owned()));
    // Ids may be left to the server.
    let mut third = super::client::Socket::connect(&format!("ws://{}/api/ws", server.address));
    assert_eq!(third.next_json()["data"]["sid"].as_str().unwrap().len(), 32);
}

#[test]
fn features_count_in_the_first_message_only() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let features = json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}).to_string();
    let mut socket = server.socket("a");
    socket.next();
    socket.send("no JSON");
    socket.send(&features);
    let answer = socket.next_json();
    assert_eq!(answer["type"], "feature_flags");
    assert_eq!(answer["data"], server.get_json("/features"));
    let mut late = server.socket("b");
    late.next();
    late.send("{\"type\": \"other\"}");
    late.send(&features);
    let id = server.queue(&save("f", "b"));
    assert!(!types(&late.until_over(&id)).contains(&"feature_flags".to_owned()));
}

#[test]
fn freed_memory_forgets_results() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let cached = |id: &str| server.ended(id)["status"]["messages"][1][1]["nodes"].as_array().unwrap().len();
    let run = || cached(&server.queue(&save("x", "nobody")));
    assert_eq!((run(), run()), (0, 2));
    assert_eq!(server.post("/free", &json!({"free_memory": true})).status, 200);
    assert_eq!(run(), 0);
    assert_eq!(server.post("/free", &json!({"unload_models": true})).status, 200);
    assert_eq!(run(), 2);
}

#[test]
fn other_sites_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let own = format!("http://{}", server.address);
    let status = |headers: &[(&str, &str)]| server.request("GET", "/prompt", headers, b"").status;
    assert_eq!(status(&[("Origin", &own)]), 200);
    assert_eq!(status(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(status(&[("Host", "evil.example")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")]), 403);
    drop(server);
    let server = Server::start(base.path(), &["--memory-queue", "--enable-cors-header", "http://a.example"]);
    let answer = server.request("GET", "/prompt", &[("Origin", "http://a.example")], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
}

#[test]
fn the_queue_survives_a_kill() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &[]);
    let done = server.queue(&save("done", "nobody"));
    server.ended(&done);
    let running = server.queue(&sampling(20, "nobody"));
    let waiting: Vec<String> = (0..3).map(|_| server.queue(&save("waiting", "nobody"))).collect();
    started(&server, &running);
    server.kill();

    let server = Server::start(base.path(), &[]);
    let entry = server.ended(&waiting[2]);
    assert_eq!(entry["status"]["completed"], true);
    let ids: Vec<String> = server.get_json("/history").as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        ids,
        [vec![done, running], waiting].concat(),
        "the killed prompt runs first, all of them once"
    );
}

#[test]
#[cfg(unix)]
fn a_stopped_server_puts_its_prompt_back() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--stop-after", "0"]);
    let running = server.queue(&sampling(20, "nobody"));
    started(&server, &running);
    assert!(server.stop().success());
    let server = Server::start(base.path(), &["--after-crash", "report"]);
    assert_eq!(server.ended(&running)["status"]["completed"], true, "it was put back, so it did not crash");
}

/// What cannot be interrupted does not hold the server up: it goes without the engine having come back.
#[test]
#[cfg(unix)]
fn a_prompt_in_the_middle_of_something_long_is_put_back_too() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--stop-after", "0"]);
    let long = server.queue(&json!({"prompt": {
        "1": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 4096, "height": 4096}},
        "2": {"class_type": "GrowMask", "inputs": {"mask": ["1", 0], "expand": 8192, "tapered_corners": true}},
        "3": {"class_type": "MaskPreview", "inputs": {"mask": ["2", 0]}},
    }}));
    let waiting = server.queue(&save("waiting", "me"));
    started(&server, &long);
    server.send("POST", "/v1/queue/pause", &json!({}));
    assert!(server.stop().success());
    let server = Server::start(base.path(), &["--after-crash", "report"]);
    let queue = server.get_json("/v1/queue");
    let ids: Vec<&Json> =
        queue["waiting"].as_array().unwrap().iter().map(|item| &item["prompt_id"]).collect();
    assert_eq!(ids, [&json!(long), &json!(waiting)], "{queue}");
    assert_eq!(queue["running"], json!([]));
    assert_eq!(server.get_json("/history"), json!({}));
}

#[test]
fn a_crashed_prompt_can_be_reported_instead() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &[]);
    let running = server.queue(&endless("nobody"));
    started(&server, &running);
    server.kill();
    let server = Server::start(base.path(), &["--after-crash", "report"]);
    let entry = server.ended(&running);
    assert_eq!(entry["status"]["status_str"], "error");
    assert_eq!(entry["status"]["messages"][0][0], "execution_error");
}

#[test]
fn two_servers_do_not_share_a_queue() {
    let base = tempfile::tempdir().unwrap();
    let _server = Server::start(base.path(), &[]);
    let second = crate::common::lattice(base.path(), &["serve", "--port", "0"]);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another server"));
}

#[test]
fn other_machines_are_served_on_purpose_only() {
    let base = tempfile::tempdir().unwrap();
    let refused = crate::common::lattice(base.path(), &["serve", "--port", "0", "--listen"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--no-auth"));
}

/// HTTP/2 begun without asking, as clients behind a proxy do.
#[test]
fn http_2_is_spoken_too() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let frame = |kind: u8, flags: u8, of: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, of], payload].concat()
    };
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // GET and http from the static table, path and authority as they are.
    let head = [&[0x82, 0x86, 0x04][..], &text("/prompt"), &[0x01], &text(&server.address)].concat();
    let (settings, headers, data) = (4, 1, 0);
    let (end_stream, end_headers, acknowledge) = (1, 4, 1);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let request = [
        &preface[..],
        &frame(settings, 0, 0, &[]),
        &frame(settings, acknowledge, 0, &[]),
        &frame(headers, end_stream | end_headers, 1, &head),
    ]
    .concat();
    stream.write_all(&request).unwrap();
    let mut found = (None, Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == headers {
            found.0 = payload.first().copied();
        } else if head[3] == data {
            found.1.extend_from_slice(&payload);
        }
        if head[8] == 1 && head[4] & end_stream != 0 {
            break;
        }
    }
    // 200 in the static table.
    assert_eq!(found.0, Some(0x88));
    let answer: Json = serde_json::from_slice(&found.1).unwrap();
    assert_eq!(answer, json!({"exec_info": {"queue_remaining": 0}}));
}
