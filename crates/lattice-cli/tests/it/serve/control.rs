//! Control of the queue beyond ComfyUI's.

use serde_json::{Value as Json, json};

use super::client::{Server, eventually};
use super::prompts::{endless, sampling, save, started};

/// Ids of what waits, in the order in which it will run.
fn waiting(server: &Server) -> Vec<String> {
    let ids = |list: &Json, id: fn(&Json) -> &Json| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| id(item).as_str().unwrap().to_owned()).collect()
    };
    let own = ids(&server.get_json("/v1/queue")["waiting"], |item| &item["prompt_id"]);
    // Clients of ComfyUI see the same order.
    let theirs = ids(&server.get_json("/queue")["queue_pending"], |item| &item[1]);
    assert_eq!(own, theirs);
    own
}

/// Queues a prompt under an id.
fn queue(server: &Server, id: &str, client: &str, more: &Json) {
    let mut body = save(id, client);
    body["prompt_id"] = id.into();
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    assert_eq!(server.queue(&body), id);
}

/// Ids in the order in which prompts have ended.
fn ended(server: &Server) -> Vec<String> {
    server.get_json("/history").as_object().unwrap().keys().cloned().collect()
}

fn drained(server: &Server) {
    eventually(|| (server.get_json("/prompt")["exec_info"]["queue_remaining"] == 0).then_some(()));
}

/// Status and kind of the error that a request is answered with.
fn refused(server: &Server, method: &str, path: &str, body: &Json) -> (u16, String) {
    let answer = server.request(method, path, &[], body.to_string().as_bytes());
    (answer.status, answer.json()["error"]["type"].as_str().unwrap().to_owned())
}

#[test]
fn prompts_run_in_the_order_they_were_put_into() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let paused = server.send("POST", "/v1/queue/pause", &json!({}));
    assert_eq!(paused, json!({"paused": true, "order": "number"}));
    for id in ["a", "b", "c", "d", "e"] {
        queue(&server, id, "me", &json!({}));
    }
    queue(&server, "high", "me", &json!({"priority": 10}));
    queue(&server, "low", "me", &json!({"priority": -10}));
    assert_eq!(waiting(&server), ["high", "a", "b", "c", "d", "e", "low"]);
    let moved = |id: &str, body: &Json| server.send("POST", &format!("/v1/queue/prompts/{id}/move"), body);
    moved("e", &json!({"before": "b"}));
    moved("a", &json!({"after": "d"}));
    assert_eq!(moved("low", &json!({"to": "front"}))["priority"], 10);
    assert_eq!(waiting(&server), ["low", "high", "e", "b", "c", "d", "a"]);
    moved("high", &json!({"to": "back"}));
    let edited = server.send("PATCH", "/v1/queue/prompts/c", &json!({"priority": 3}));
    assert_eq!((&edited["prompt_id"], &edited["priority"]), (&json!("c"), &json!(3)));
    server.send("DELETE", "/v1/queue/prompts/b", &json!({}));
    let expected = ["low", "c", "e", "d", "a", "high"];
    assert_eq!(waiting(&server), expected);

    let state = server.get_json("/v1/queue");
    assert_eq!((&state["paused"], &state["running"]), (&json!(true), &json!([])));
    assert_eq!(
        state["waiting"][1],
        json!({"prompt_id": "c", "number": 2.0, "priority": 3, "client_id": "me", "attempts": 0})
    );
    assert_eq!(ended(&server), Vec::<String>::new());
    server.send("POST", "/v1/queue/resume", &json!({}));
    drained(&server);
    assert_eq!(ended(&server), expected);
}

#[test]
fn control_refuses_what_makes_no_sense() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut body = endless("me");
    body["prompt_id"] = "running".into();
    server.queue(&body);
    started(&server, "running");
    queue(&server, "a", "me", &json!({}));
    let not_queued = (404, "not_queued".to_owned());
    let running = (409, "running".to_owned());
    let bad = (400, "bad_request".to_owned());
    for (method, path, body, expected) in [
        ("PATCH", "nothing", json!({"priority": 1}), &not_queued),
        ("PATCH", "running", json!({"priority": 1}), &running),
        ("PATCH", "running", save("x", "me"), &bad),
        ("PATCH", "a", json!({"priority": "high"}), &bad),
        ("PATCH", "a", json!({"priority": 3_000_000_000_u64}), &bad),
        ("PATCH", "a", json!({"prompt_id": "b"}), &bad),
        ("PATCH", "a", json!({"extra_data": {}}), &bad),
        ("PATCH", "a", json!([]), &bad),
        ("DELETE", "nothing", json!({}), &not_queued),
        ("DELETE", "running", json!({}), &running),
        ("POST", "a/move", json!({}), &bad),
        ("POST", "a/move", json!({"to": "middle"}), &bad),
        ("POST", "a/move", json!({"before": "a", "after": "a"}), &bad),
        ("POST", "a/move", json!({"before": "nothing"}), &not_queued),
        ("POST", "a/move", json!({"after": "running"}), &running),
        ("POST", "running/move", json!({"to": "back"}), &running),
    ] {
        let path = format!("/v1/queue/prompts/{path}");
        assert_eq!(&refused(&server, method, &path, &body), expected, "{method} {path} {body}");
    }
    assert_eq!(refused(&server, "PUT", "/v1/queue/order", &json!({"order": "random"})), bad);
    let mut body = save("x", "me");
    body["priority"] = 1.5.into();
    assert_eq!(refused(&server, "POST", "/prompt", &body), bad);
    assert_eq!(server.get("/v1/queue/prompts/nothing").status, 404);
    assert_eq!(waiting(&server), ["a"]);
    assert_eq!(server.get("/api/v1/queue").status, 404, "our own routes exist once");
}

#[test]
fn clients_take_turns_when_told_to() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--queue-order", "fair"]);
    server.send("POST", "/v1/queue/pause", &json!({}));
    for (id, client) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")] {
        queue(&server, id, client, &json!({}));
    }
    queue(&server, "a4", "a", &json!({"priority": 1}));
    let expected = ["a4", "b1", "c1", "a1", "b2", "a2", "a3"];
    assert_eq!(waiting(&server), expected);
    // The setting is kept, and can be changed while the server runs.
    server.kill();
    let server = Server::start(base.path(), &[]);
    assert_eq!(waiting(&server), expected);
    let set = server.send("PUT", "/v1/queue/order", &json!({"order": "number"}));
    assert_eq!(set, json!({"paused": true, "order": "number"}));
    assert_eq!(waiting(&server), ["a4", "a1", "a2", "a3", "b1", "b2", "c1"]);
    server.send("PUT", "/v1/queue/order", &json!({"order": "fair"}));
    server.send("POST", "/v1/queue/resume", &json!({}));
    drained(&server);
    assert_eq!(ended(&server), expected);
}

#[test]
fn a_pause_survives_a_kill() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &[]);
    let running = server.queue(&sampling(40, "me"));
    started(&server, &running);
    server.send("POST", "/v1/queue/pause", &json!({}));
    queue(&server, "a", "me", &json!({}));
    // The running prompt ends; nothing else is started.
    server.ended(&running);
    assert_eq!(waiting(&server), ["a"]);
    server.kill();
    let server = Server::start(base.path(), &[]);
    assert_eq!(server.get_json("/v1/queue")["paused"], true);
    queue(&server, "b", "me", &json!({}));
    server.send("POST", "/v1/queue/prompts/b/move", &json!({"to": "front"}));
    assert_eq!(waiting(&server), ["b", "a"]);
    assert_eq!(ended(&server), std::slice::from_ref(&running));
    server.send("POST", "/v1/queue/resume", &json!({}));
    server.ended("a");
    assert_eq!(ended(&server), [running, "b".into(), "a".into()]);
}

#[test]
fn prompts_are_edited_before_they_run() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    server.send("POST", "/v1/queue/pause", &json!({}));
    queue(&server, "p", "me", &json!({"extra_data": {"extra_pnginfo": {"workflow": 1}}}));
    queue(&server, "q", "me", &json!({}));
    let path = "/v1/queue/prompts/p";
    // Refused as a new prompt would be, and nothing changes.
    let before = server.get_json(path);
    assert_eq!(before["extra_data"]["client_id"], "me");
    for graph in [
        json!({}),
        json!("text"),
        json!({"1": {"class_type": "Nothing", "inputs": {}}}),
        json!({"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}),
    ] {
        let body = json!({"prompt": graph});
        let edit = server.request("PATCH", path, &[], body.to_string().as_bytes());
        let new = server.post("/prompt", &body);
        assert_eq!((edit.status, edit.json()), (new.status, new.json()), "{graph}");
        assert_eq!(edit.status, 400);
    }
    assert_eq!(server.get_json(path), before);

    let mut graph = save("edited", "")["prompt"].take();
    graph["1"]["inputs"]["width"] = 32.into();
    let body = json!({"prompt": graph, "extra_data": {"client_id": "thief", "note": 1}});
    let edited = server.send("PATCH", path, &body);
    assert_eq!((&edited["prompt_id"], &edited["node_errors"]), (&json!("p"), &json!({})));
    let after = server.get_json(path);
    assert_eq!(after["prompt"]["1"]["inputs"]["width"], 32);
    assert_eq!(after["extra_data"], json!({"note": 1, "client_id": "me"}));
    assert_eq!((&after["number"], &after["outputs"]), (&before["number"], &before["outputs"]));
    assert_eq!(waiting(&server), ["p", "q"]);
    server.send("POST", "/v1/queue/resume", &json!({}));
    let entry = server.ended("p");
    assert_eq!(entry["prompt"][2]["1"]["inputs"]["width"], 32);
    assert_eq!(entry["outputs"]["2"]["images"][0]["filename"], "edited_00001_.png");
}

#[test]
fn a_queue_moves_to_another_server() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Server::start(here.path(), &[]);
    source.send("POST", "/v1/queue/pause", &json!({}));
    queue(&source, "taken", "a", &json!({"extra_data": {"note": "ü"}}));
    queue(&source, "free", "b", &json!({}));
    queue(&source, "first", "c", &json!({"priority": 2}));
    let export = source.get_json("/v1/queue/export");
    assert_eq!(export["version"], 1);
    assert_eq!(waiting(&source).len(), 3, "the queue stays as it is");

    let target = Server::start(there.path(), &[]);
    queue(&target, "taken", "x", &json!({}));
    target.ended("taken");
    target.send("POST", "/v1/queue/pause", &json!({}));
    queue(&target, "there", "x", &json!({"priority": 0}));
    let result = target.send("POST", "/v1/queue/import", &export);
    assert_eq!(result["refused"], json!([]));
    let imported = result["imported"].as_array().unwrap();
    assert_eq!(imported[0], json!({"prompt_id": "first", "node_errors": {}}));
    assert_eq!(imported[1]["was"], "taken");
    let new = imported[1]["prompt_id"].as_str().unwrap().to_owned();
    assert_eq!(imported[2], json!({"prompt_id": "free", "node_errors": {}}));
    let expected = ["first", "there", &new, "free"];
    assert_eq!(waiting(&target), expected);
    let prompt = target.get_json(&format!("/v1/queue/prompts/{new}"));
    assert_eq!(prompt["extra_data"], json!({"note": "ü", "client_id": "a"}));
    assert_eq!((&prompt["client_id"], &prompt["outputs"]), (&json!("a"), &json!(["2"])));

    // A prompt that this server refuses keeps all out, unless told otherwise.
    let mut broken = export.clone();
    broken["prompts"][1]["prompt"]["1"]["class_type"] = "Elsewhere".into();
    let answer = target.post("/v1/queue/import", &broken);
    let refused = &answer.json()["refused"];
    assert_eq!((answer.status, refused.as_array().unwrap().len()), (400, 1));
    assert_eq!((&refused[0]["prompt_id"], &refused[0]["index"]), (&json!("taken"), &json!(1)));
    assert!(!refused[0]["error"]["type"].is_null());
    assert_eq!(waiting(&target), expected);
    let result = target.send("POST", "/v1/queue/import?skip_invalid=true", &broken);
    assert_eq!(result["imported"].as_array().unwrap().len(), 2);
    assert_eq!(waiting(&target).len(), 6);
    for body in
        [json!({}), json!([]), json!({"version": 2, "prompts": []}), json!({"version": 1, "prompts": 1})]
    {
        assert_eq!(target.post("/v1/queue/import", &body).status, 400, "{body}");
    }
    for prompt in [json!(1), json!({}), json!({"prompt": 1})] {
        let body = json!({"version": 1, "prompts": [prompt]});
        assert_eq!(target.post("/v1/queue/import", &body).status, 400, "{body}");
    }
    let order = [vec!["taken".to_owned()], waiting(&target)].concat();
    target.send("POST", "/v1/queue/resume", &json!({}));
    drained(&target);
    assert_eq!(ended(&target), order);
}

#[test]
fn an_export_may_hold_the_running_prompt() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let running = server.queue(&endless("me"));
    started(&server, &running);
    queue(&server, "a", "me", &json!({}));
    let ids = |path: &str| -> Vec<Json> {
        let export = server.get_json(path);
        export["prompts"].as_array().unwrap().iter().map(|prompt| prompt["prompt_id"].clone()).collect()
    };
    assert_eq!(ids("/v1/queue/export"), ["a"]);
    assert_eq!(ids("/v1/queue/export?running=true"), [running.as_str(), "a"]);
}
