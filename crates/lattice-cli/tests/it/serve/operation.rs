//! What those who run a server ask of it: health, metrics, the description of its routes, and a good end.

use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::client::{Server, eventually};
use super::prompts::{endless, save, started};
use crate::common::project;

/// Values of Prometheus's text format by name and labels; each must belong to a metric that is described.
fn metrics(server: &Server) -> HashMap<String, f64> {
    let answer = server.get("/metrics");
    assert_eq!(
        (answer.status, answer.header("content-type").unwrap().split(';').next()),
        (200, Some("text/plain"))
    );
    let text = String::from_utf8(answer.body).unwrap();
    let (mut values, mut types) = (HashMap::new(), HashSet::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            if keyword == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&words.next().unwrap()), "{line}");
                assert!(types.insert(name.to_owned()), "{name} is described twice");
            }
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let name = key.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(types.contains(name) || of_histogram.is_some_and(|name| types.contains(name)), "{line}");
        assert!(values.insert(key.to_owned(), value.parse().unwrap()).is_none(), "{key} is there twice");
    }
    values
}

#[test]
fn metrics_follow_what_happens() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let start = metrics(&server);
    for name in [
        "lattice_prompts_total{outcome=\"success\"}",
        "lattice_prompts_total{outcome=\"error\"}",
        "lattice_prompts_total{outcome=\"interrupted\"}",
        "lattice_nodes_executed_total",
        "lattice_nodes_cached_total",
        "lattice_queue_waiting",
        "lattice_queue_running",
        "lattice_queue_paused",
        "lattice_websocket_clients",
        "lattice_event_listeners",
    ] {
        assert_eq!(start.get(name), Some(&0.0), "{name}");
    }
    assert!(start["process_resident_memory_bytes"] > 1e6);
    assert!(start["process_start_time_seconds"] > 1e9);
    assert!(start.keys().any(|key| key.starts_with("lattice_build_info{version=")));

    for _ in 0..2 {
        let id = server.queue(&save("m", "me"));
        server.ended(&id);
    }
    let mut socket = server.socket("me");
    socket.next();
    let mut events = server.events("", &[]);
    events.next();
    let running = server.queue(&endless("me"));
    server.queue(&save("m", "me"));
    started(&server, &running);
    server.send("POST", "/v1/queue/pause", &json!({}));
    let now = metrics(&server);
    for (name, expected) in [
        ("lattice_prompts_total{outcome=\"success\"}", 2.0),
        ("lattice_prompt_duration_seconds_count{outcome=\"success\"}", 2.0),
        ("lattice_prompt_duration_seconds_bucket{outcome=\"success\",le=\"+Inf\"}", 2.0),
        ("lattice_nodes_cached_total", 2.0),
        ("lattice_queue_waiting", 1.0),
        ("lattice_queue_running", 1.0),
        ("lattice_queue_paused", 1.0),
        ("lattice_websocket_clients", 1.0),
        ("lattice_event_listeners", 1.0),
    ] {
        assert_eq!(now.get(name), Some(&expected), "{name}");
    }
    assert!(now["lattice_nodes_executed_total"] >= 2.0);
    assert!(now["lattice_uptime_seconds"] > start["lattice_uptime_seconds"]);
    server.post("/interrupt", &json!({}));
    server.ended(&running);
    drop((socket, events));
    let gone = |values: &HashMap<String, f64>| {
        values["lattice_websocket_clients"] == 0.0 && values["lattice_event_listeners"] == 0.0
    };
    let end = eventually(|| Some(metrics(&server)).filter(gone));
    assert_eq!(end["lattice_prompts_total{outcome=\"interrupted\"}"], 1.0);
}

#[test]
fn a_server_whose_queue_does_not_answer_is_not_ready() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &[]);
    assert_eq!(server.get_json("/healthz"), json!({"status": "ok"}));
    assert_eq!(server.get_json("/readyz"), json!({"status": "ok"}));
    let other = rusqlite::Connection::open(base.path().join("user/queue.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = eventually(|| Some(server.get("/readyz")).filter(|answer| answer.status == 503));
    assert_eq!(refused.json(), json!({"status": "unavailable", "reason": "the queue does not answer"}));
    assert_eq!(server.get("/healthz").status, 200);
    other.execute_batch("ROLLBACK").unwrap();
    eventually(|| Some(()).filter(|()| server.get("/readyz").status == 200));
}

#[test]
#[cfg(unix)]
fn a_server_that_is_told_to_stop_finishes_what_runs_and_takes_nothing_new() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--stop-after", "60"]);
    let mut socket = server.socket("me");
    let mut events = server.events("", &[]);
    let running = server.queue(&endless("me"));
    let waiting = server.queue(&save("waiting", "me"));
    events.until("progress");
    server.terminate();
    // Until the signal has arrived prompts are taken, and what was taken is kept.
    let mut taken = vec![running.clone(), waiting];
    let refused = eventually(|| {
        let answer = server.post("/prompt", &save("x", "me"));
        if answer.status != 200 {
            return Some(answer);
        }
        taken.push(answer.json()["prompt_id"].as_str().unwrap().to_owned());
        None
    });
    assert_eq!((refused.status, refused.json()["error"]["type"].as_str()), (503, Some("stopping")));
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let import = server.post("/v1/queue/import", &json!({"version": 1, "prompts": []}));
    assert_eq!((import.status, import.header("retry-after").is_some()), (503, true));
    assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (503, 200));
    // Looking is still possible, and so is ending the running prompt, which would take long.
    assert_eq!(server.get_json("/v1/queue")["running"][0]["prompt_id"], running.as_str());
    server.post("/interrupt", &json!({}));
    let messages = socket.until_over(&running);
    assert!(
        messages
            .iter()
            .any(|message| message.to_text().is_ok_and(|text| text.contains("execution_interrupted")))
    );
    let rest: Vec<_> = std::iter::from_fn(|| events.next()).collect();
    assert_eq!(rest.last().unwrap().kind, "finished", "the stream ends with all that there was");
    assert!(socket.next().is_close());
    assert!(server.wait().success());

    let server = Server::start(base.path(), &[]);
    server.ended(&taken[taken.len() - 1]);
    let ended: Vec<String> = server.get_json("/history").as_object().unwrap().keys().cloned().collect();
    assert_eq!(ended, taken);
}

/// Method and path of each operation of the description.
fn operations(document: &Json) -> Vec<(String, String, &Json)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    found
}

/// A path with something in place of its parameters.
fn filled(path: &str) -> String {
    let fill = |segment: &str| if segment.starts_with('{') { "none".to_owned() } else { segment.to_owned() };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_of_ours_is_described_and_there() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let document = server.get_json("/openapi.json");
    let table = std::fs::read_to_string(project("docs/server.md")).unwrap();
    let described = operations(&document);
    assert!(described.len() >= 15);
    for (method, path, _) in &described {
        // A wrong method is told only where there is a route.
        let wrong = server.request("QUERY", &filled(path), &[], b"");
        assert_eq!(wrong.status, 405, "there is no {path}");
        let allowed = wrong.header("allow").unwrap().split(',').any(|allowed| allowed == method);
        assert!(allowed, "{path} does not know {method}");
        assert!(table.contains(&format!("`{path}`")), "{path} is missing in docs/server.md");
    }
    // The other way round: what a path allows is described.
    for path in document["paths"].as_object().unwrap().keys() {
        let wrong = server.request("QUERY", &filled(path), &[], b"");
        for method in wrong.header("allow").unwrap().split(',').filter(|method| *method != "HEAD") {
            assert!(described.iter().any(|(m, p, _)| (m.as_str(), p) == (method, path)), "{method} {path}");
        }
    }
    // And so is each route that the documents tell of as ours.
    let ours = table.split("## Routes of our own").nth(1).unwrap().split("\n## ").next().unwrap();
    for row in ours.lines().filter_map(|line| line.strip_prefix("| `")) {
        let path = row.split('`').next().unwrap();
        assert!(described.iter().any(|(_, described, _)| described == path), "{path} is not described");
    }
}

#[test]
fn the_description_is_well_formed() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let document = server.get_json("/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    references_resolve(&document, &document);
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut ids = HashSet::new();
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{place}: its id is taken");
        assert!(operation["summary"].is_string(), "{place}");
        for requirement in operation["security"].as_array().unwrap() {
            assert!(
                requirement.as_object().unwrap().keys().all(|name| schemes.contains_key(name)),
                "{place}"
            );
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("200"), "{place}");
        for (status, response) in responses {
            assert!((100..600).contains(&status.parse::<u16>().unwrap()), "{place}");
            assert!(!response["description"].as_str().unwrap().is_empty(), "{place}: {status}");
            schemas(&response["content"], &place);
        }
        if !operation["requestBody"].is_null() {
            assert!(["POST", "PUT", "PATCH"].contains(&method.as_str()), "{place}");
            assert!(operation["requestBody"]["content"].is_object(), "{place}");
            schemas(&operation["requestBody"]["content"], &place);
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let mut in_path = HashSet::new();
        for parameter in &parameters {
            let place = format!("{place}: {}", parameter["name"]);
            assert!(parameter["schema"].is_object(), "{place}");
            match parameter["in"].as_str().unwrap() {
                "path" => {
                    assert_eq!(parameter["required"], true, "{place}");
                    in_path.insert(parameter["name"].as_str().unwrap().to_owned());
                }
                other => assert!(["query", "header"].contains(&other), "{place}"),
            }
        }
        let named = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned());
        assert_eq!(named.collect::<HashSet<_>>(), in_path, "{place}");
    }
}

fn schemas(content: &Json, place: &str) {
    for (kind, media) in content.as_object().into_iter().flatten() {
        assert!(kind.contains('/') && media["schema"].is_object(), "{place}: {kind}");
    }
}

/// Every `$ref` leads somewhere, and every `type` is one of JSON Schema.
fn references_resolve(part: &Json, document: &Json) {
    const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
    match part {
        Json::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Json::as_str) {
                let pointer = reference.strip_prefix('#').expect("within the document");
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            if let Some(Json::String(kind)) = fields.get("type") {
                assert!(TYPES.contains(&kind.as_str()) || kind == "http", "{kind}");
            }
            fields.values().for_each(|field| references_resolve(field, document));
        }
        Json::Array(items) => items.iter().for_each(|item| references_resolve(item, document)),
        _ => {}
    }
}
