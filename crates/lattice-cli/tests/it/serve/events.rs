//! `/events`.

use serde_json::{Value as Json, json};

use super::client::{Server, ServerEvent};
use super::prompts::{endless, save};

fn kinds(events: &[ServerEvent]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn changes(events: &[ServerEvent]) -> Vec<&Json> {
    events.iter().filter(|event| event.kind == "queue").map(|event| &event.data["change"]).collect()
}

#[test]
fn a_listener_hears_a_run_and_goes_on_where_it_was() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut events = server.events("", &[]);
    let first = events.next().unwrap();
    assert_eq!(first.kind, "resync");
    assert_eq!(
        first.data,
        json!({
            "reason": "connected", "queue_remaining": 0, "paused": false, "order": "number",
            "running": null, "node": null,
        })
    );
    let id = server.queue(&save("a", "me"));
    let heard = events.until("finished");
    assert_eq!(changes(&heard), ["queued", "started", "finished"]);
    let mut run = kinds(&heard);
    run.retain(|kind| *kind != "queue");
    assert_eq!(
        run,
        [
            "execution_start",
            "execution_cached",
            "executing",
            "executing",
            "executed",
            "execution_success",
            "finished"
        ]
    );
    assert!(heard.iter().all(|event| event.data["prompt_id"] == id.as_str()));
    assert_eq!(heard.last().unwrap().data, json!({"prompt_id": id, "outcome": "success"}));
    let executed = heard.iter().find(|event| event.kind == "executed").unwrap();
    assert_eq!(executed.data["output"]["images"][0]["filename"], "a_00001_.png");
    let queued = heard.iter().find(|event| event.kind == "queue").unwrap();
    assert_eq!(queued.data, json!({"change": "queued", "prompt_id": id, "queue_remaining": 1}));

    // The listener goes, misses a run, and comes back.
    drop(events);
    let missed = server.queue(&save("b", "me"));
    server.ended(&missed);
    let last = &heard[3];
    let mut again = server.events("", &[("Last-Event-ID", &last.id)]);
    let replayed = again.until("finished");
    assert_eq!(
        replayed.iter().map(|event| &event.id).collect::<Vec<_>>(),
        heard[4..].iter().map(|event| &event.id).collect::<Vec<_>>()
    );
    assert!(again.until("finished").iter().all(|event| event.data["prompt_id"] == missed.as_str()));
    // Scripts in browsers may not set headers; and one may listen to a single prompt.
    let mut one = server.events(&format!("?prompt_id={missed}&last_event_id={}", last.id), &[]);
    assert!(one.until("finished").iter().all(|event| event.data["prompt_id"] == missed.as_str()));
    // Ids of another process, or none of ours, are not taken for known ones.
    for id in ["x", "0123abcd-3", ""] {
        let resync = server.events("", &[("Last-Event-ID", id)]).next().unwrap();
        assert_eq!((&*resync.kind, &resync.data["reason"]), ("resync", &json!("unknown_id")), "{id}");
    }
}

#[test]
fn a_listener_hears_changes_and_ends() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut events = server.events("", &[]);
    events.next();
    server.send("POST", "/v1/queue/pause", &json!({}));
    let a = server.queue(&save("a", "me"));
    let b = server.queue(&save("b", "me"));
    server.send("POST", &format!("/v1/queue/prompts/{b}/move"), &json!({"to": "front"}));
    server.send("PATCH", &format!("/v1/queue/prompts/{b}"), &json!({"priority": 1}));
    server.send("DELETE", &format!("/v1/queue/prompts/{a}"), &json!({}));
    server.send("PUT", "/v1/queue/order", &json!({"order": "fair"}));
    server.post("/queue", &json!({"clear": true}));
    let running = server.queue(&endless("me"));
    server.send("POST", "/v1/queue/resume", &json!({}));
    let mut heard = events.until("progress");
    let resync = server.events("", &[]).next().unwrap().data;
    assert_eq!((&resync["running"], &resync["order"]), (&json!(running), &json!("fair")));
    assert_eq!(resync["node"], "3");
    server.post("/interrupt", &json!({}));
    heard.extend(events.until("finished"));
    assert_eq!(
        changes(&heard),
        [
            "paused",
            "queued",
            "queued",
            "moved",
            "edited",
            "removed",
            "reordered",
            "cleared",
            "queued",
            "resumed",
            "started",
            "finished"
        ]
    );
    assert!(kinds(&heard).contains(&"execution_interrupted"));
    assert_eq!(heard.last().unwrap().data["outcome"], "interrupted");
    let progress = heard.iter().find(|event| event.kind == "progress").unwrap();
    assert_eq!((&progress.data["max"], &progress.data["node"]), (&json!(10_000.0), &json!("3")));
}

#[test]
fn listeners_that_do_not_read_are_told_that_they_missed_something() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut events = server.events("", &[]);
    events.next();
    // More than the server keeps and the sockets' buffers hold: a chain of nodes is three events per node.
    let chain = |length: usize| {
        let mut prompt = json!({
            "0": {"class_type": "EmptyImage", "inputs": {"width": 1, "height": 1, "batch_size": 1, "color": 0}},
        });
        for i in 1..length {
            let link = json!([(i - 1).to_string(), 0]);
            prompt[i.to_string()] = json!({"class_type": "ImageInvert", "inputs": {"image": link}});
        }
        let link = json!([(length - 1).to_string(), 0]);
        prompt["save"] = json!({"class_type": "PreviewImage", "inputs": {"images": link}});
        json!({"prompt": prompt})
    };
    let mut last = String::new();
    for round in 0..20 {
        let mut body = chain(5000);
        body["prompt"]["0"]["inputs"]["color"] = round.into();
        last = server.queue(&body);
    }
    server.ended(&last);
    let heard = events.until("resync");
    assert_eq!(heard.last().unwrap().data["reason"], "lagged");
    // From then on it hears everything again.
    let id = server.queue(&save("after", "me"));
    let heard = events.until("finished");
    assert_eq!(changes(&heard).last(), Some(&&json!("finished")));
    assert_eq!(heard.last().unwrap().data["prompt_id"], id.as_str());
}
