//! Pictures for programs: `/v1/images/generations` and the templates behind it.

use std::io::Write;
use std::net::TcpStream;

use base64::Engine;
use lattice_media::decode::decode;
use serde_json::{Value as Json, json};

use super::client::{Answer, Server, eventually};
use crate::common::project;

const PATH: &str = "/v1/images/generations";

/// A small request, with further fields.
fn request(fields: Json) -> Json {
    let mut body = json!({"prompt": "a cat", "size": "64x32", "seed": 7, "steps": 2});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn start() -> (tempfile::TempDir, Server) {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    (base, server)
}

/// Width, height and colours of a picture file.
fn pixels(file: &[u8]) -> (usize, usize, Vec<u8>) {
    let decoded = decode(file, lattice_media::Limits::default()).unwrap();
    let picture = decoded.frames.into_iter().next().unwrap();
    (picture.width, picture.height, picture.rgb)
}

fn file(json: &Json) -> Vec<u8> {
    let text = json["b64_json"].as_str().unwrap_or_else(|| panic!("no picture: {json}"));
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn pictures(server: &Server, fields: Json) -> Vec<Vec<u8>> {
    let mut body = request(fields);
    body["response_format"] = "b64_json".into();
    let answer = server.post(PATH, &body);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["data"].as_array().unwrap().iter().map(file).collect()
}

/// Names and data of the events of a stream.
fn events(answer: &Answer) -> Vec<(String, Json)> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    let event = |block: &str| {
        let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')).map(event).collect()
}

#[test]
fn a_picture_whose_file_is_gone_is_made_again() {
    let (base, server) = start();
    let first = pictures(&server, json!({}));
    for fields in [json!({"response_format": "b64_json"}), json!({"stream": true}), json!({})] {
        let folder = base.path().join("output");
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            std::fs::remove_file(entry.path()).unwrap();
        }
        let answer = server.post(PATH, &request(fields.clone()));
        assert_eq!(answer.status, 200, "{fields}: {}", String::from_utf8_lossy(&answer.body));
        let made: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
        assert_eq!(made.len(), 1, "{fields}");
        assert_eq!(pixels(&std::fs::read(made[0].path()).unwrap()), pixels(&first[0]), "{fields}");
    }
}

#[test]
fn a_picture_comes_back() {
    let (_base, server) = start();
    let first = pictures(&server, json!({}));
    let (width, height, colours) = pixels(&first[0]);
    assert_eq!((first.len(), width, height), (1, 64, 32));
    assert!(colours.iter().max().unwrap() - colours.iter().min().unwrap() > 20, "there is something in it");
    assert_eq!(pixels(&pictures(&server, json!({}))[0]), pixels(&first[0]), "a seed makes one picture");
    assert_ne!(pixels(&pictures(&server, json!({"seed": 8}))[0]), pixels(&first[0]));
    assert_ne!(pixels(&pictures(&server, json!({"prompt": "a house"}))[0]), pixels(&first[0]));
    let two = pictures(&server, json!({"n": 2}));
    assert_eq!(two.len(), 2);
    assert_ne!(pixels(&two[0]), pixels(&two[1]));
    for (format, start) in [("jpeg", &[0xff, 0xd8][..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        assert!(pictures(&server, json!({"output_format": format}))[0].starts_with(start), "{format}");
    }

    let answer = server.post(PATH, &request(json!({}))).json();
    assert_eq!(answer["seed"], 7);
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);
    let url = answer["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert_eq!(pixels(&server.get(path).body), pixels(&first[0]));
    let entry = server.ended(answer["prompt_id"].as_str().unwrap());
    assert_eq!(entry["status"]["completed"], true);
    // Without a seed there is another one each time.
    let drawn =
        |_| server.post(PATH, &json!({"prompt": "a", "size": "64x64", "steps": 1})).json()["seed"].clone();
    let seeds: Vec<Json> = (0..2).map(drawn).collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn a_stream_shows_pictures_on_the_way() {
    let (_base, server) = start();
    let stream = |fields: Json| {
        let mut body = request(fields);
        body["stream"] = true.into();
        events(&server.post(PATH, &body))
    };
    let events = stream(json!({"steps": 8, "partial_images": 2}));
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let (partial, completed) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(names, [partial, partial, completed]);
    for (index, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], name.as_str());
        assert_eq!(data["output_format"], "png");
        assert!(data["created_at"].as_u64().is_some());
        let (width, height, _) = pixels(&file(data));
        assert_eq!(data["size"], format!("{width}x{height}"));
        assert_eq!(width, 2 * height);
        let place = data["partial_image_index"].as_u64();
        assert_eq!(place, (index < 2).then_some(index as u64));
    }
    assert_ne!(pixels(&file(&events[0].1)), pixels(&file(&events[1].1)));
    let whole = pictures(&server, json!({"steps": 8}));
    assert_eq!(pixels(&file(&events[2].1)), pixels(&whole[0]), "the last picture is the result");

    let names = |fields: Json| stream(fields).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(json!({"steps": 4, "seed": 1, "partial_images": 0})), [completed]);
    assert_eq!(names(json!({"steps": 4, "seed": 2})), [partial, partial, partial, completed]);
    assert_eq!(names(json!({"steps": 1, "seed": 3, "n": 2})), [completed, completed]);
}

#[test]
fn refusals_say_what_is_wrong() {
    let (_base, server) = start();
    let refused = |fields: Json| {
        let answer = server.post(PATH, &request(fields));
        (answer.status, answer.json()["error"].clone())
    };
    for (field, value) in [
        ("prompt", json!("")),
        ("size", json!("large")),
        ("size", json!("8x99999")),
        ("n", json!(0)),
        ("seed", json!(-1)),
        ("steps", json!(0)),
        ("steps", json!(["4", 0])),
        ("sampler", json!("nothing")),
        ("checkpoint", json!("absent.safetensors")),
        ("unheard_of", json!(1)),
        ("partial_images", json!(9)),
    ] {
        let (status, error) = refused(json!({field: value, "stream": true}));
        assert_eq!((status, &error["param"]), (400, &json!(field)), "{field} {value}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let (status, error) = refused(json!({"model": "gpt-image-1"}));
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    for body in ["", "{", "[]", "5", "{}"] {
        let answer = server.request("POST", PATH, &[], body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{body}");
    }
    assert_eq!(server.get_json("/history"), json!({}), "nothing was queued");
}

#[test]
fn templates_are_files_of_the_user() {
    let (base, server) = start();
    let models = |server: &Server| -> Vec<Json> {
        let list = server.get_json("/v1/models");
        assert_eq!(list["object"], "list");
        list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect()
    };
    assert_eq!(models(&server), ["default"]);
    let text = std::fs::read_to_string(project("examples/image_template.json")).unwrap();
    let mut template: Json = serde_json::from_str(&text).unwrap();
    template["bindings"] = json!({"prompt": "6.text", "seed": "3.seed"});
    template["prompt"]["3"]["inputs"]["steps"] = 1.into();
    template["prompt"]["5"]["inputs"] = json!({"width": 32, "height": 64, "batch_size": 1});
    // Clients may bring it, as any other file of theirs.
    let stored = server.post("/userdata/image_templates%2Ftiny.json", &template);
    assert_eq!(stored.status, 200);
    assert_eq!(models(&server), ["default", "tiny"]);
    assert_eq!(server.get_json("/v1/models/tiny")["id"], "tiny");
    assert_eq!(server.get("/v1/models/none").status, 404);
    let body = json!({"model": "tiny", "prompt": "a dog", "seed": 5, "response_format": "b64_json"});
    let answer = server.post(PATH, &body).json();
    assert_eq!(pixels(&file(&answer["data"][0])).0, 32);
    for field in ["size", "n", "steps"] {
        let value = if field == "size" { json!("64x64") } else { json!(2) };
        let refused = server.post(PATH, &json!({"model": "tiny", "prompt": "a dog", field: value}));
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(field)));
    }

    // A template of the user replaces the one that comes with the program.
    let folder = base.path().join("user/default/image_templates");
    std::fs::copy(folder.join("tiny.json"), folder.join("default.json")).unwrap();
    let body = json!({"prompt": "a dog", "seed": 5, "response_format": "b64_json"});
    assert_eq!(file(&server.post(PATH, &body).json()["data"][0]).len(), file(&answer["data"][0]).len());
    for (name, text) in [
        ("broken", "{".to_owned()),
        ("unbound", r#"{"prompt": {}, "bindings": {}}"#.to_owned()),
        ("classless", text.replace("VAEDecode", "NoSuchNode")),
        ("wrong", text.replace("dpmpp_2m", "no such sampler")),
    ] {
        std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
        let answer = server.post(PATH, &json!({"model": name, "prompt": "a"}));
        assert_eq!(answer.status, if name == "wrong" { 400 } else { 500 }, "{name}");
        assert!(answer.json()["error"]["message"].is_string());
    }
}

/// Asks, and leaves the connection open.
fn ask(server: &Server, body: &Json) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let (host, body) = (&server.address, body.to_string());
    let length = body.len();
    write!(stream, "POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    stream
}

#[test]
fn a_client_that_goes_takes_its_prompt_along() {
    let (_base, server) = start();
    let queue = || {
        let queue = server.get_json("/queue");
        let count = |list: &str| queue[list].as_array().unwrap().len();
        (count("queue_running"), count("queue_pending"))
    };
    for stream in [true, false] {
        let endless = request(json!({"steps": 10_000, "stream": stream, "seed": 1}));
        let running = ask(&server, &endless);
        eventually(|| (queue() == (1, 0)).then_some(()));
        let waiting = ask(&server, &endless);
        eventually(|| (queue() == (1, 1)).then_some(()));
        drop(waiting);
        eventually(|| (queue() == (1, 0)).then_some(()));
        drop(running);
        eventually(|| (queue() == (0, 0)).then_some(()));
    }
    let history = server.get_json("/history");
    let status = |entry: &Json| entry["status"]["status_str"].clone();
    let ended: Vec<Json> = history.as_object().unwrap().values().map(status).collect();
    assert_eq!(ended, ["error", "error"], "those that ran were interrupted, those that waited are gone");
}

#[test]
fn a_prompt_that_others_end_is_reported() {
    let (_base, server) = start();
    let endless = request(json!({"steps": 10_000}));
    let answers = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post(PATH, &endless));
        let busy = || server.get_json("/prompt")["exec_info"]["queue_remaining"].as_u64();
        eventually(|| (busy() == Some(1)).then_some(()));
        let waiting = scope.spawn(|| server.post(PATH, &endless));
        eventually(|| (busy() == Some(2)).then_some(()));
        server.post("/queue", &json!({"clear": true}));
        let dropped = waiting.join().unwrap();
        server.post("/interrupt", &json!({}));
        [dropped, running.join().unwrap()]
    });
    let codes = answers.map(|answer| (answer.status, answer.json()["error"]["code"].clone()));
    assert_eq!(codes, [(500, json!("dropped")), (500, json!("interrupted"))]);
}

#[test]
fn keys_count_here_too() {
    let base = tempfile::tempdir().unwrap();
    let key = |name: &str, scope: &str| {
        let made = crate::common::lattice(base.path(), &["key", "create", name, "--scope", scope]);
        String::from_utf8(made.stdout).unwrap().trim().lines().last().unwrap().to_owned()
    };
    let (read, queue) = (key("r", "read"), key("q", "queue"));
    let server = Server::start(base.path(), &["--memory-queue", "--require-key"]);
    let ask = |method: &str, path: &str, key: Option<&str>| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        server.request(method, path, &headers, b"{}")
    };
    let refused = ask("POST", PATH, None);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(ask("POST", PATH, Some(&read)).status, 403);
    assert_eq!(ask("GET", "/v1/models", Some(&read)).status, 200);
    assert_eq!(ask("POST", PATH, Some(&queue)).json()["error"]["param"], "prompt");
}
