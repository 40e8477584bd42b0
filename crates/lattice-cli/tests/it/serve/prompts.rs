//! Prompts that tests queue.

use serde_json::{Value as Json, json};

use super::client::{Server, eventually};
use crate::common::project;

/// A picture that is saved under a name of its own.
pub(super) fn save(name: &str, client_id: &str) -> Json {
    json!({
        "client_id": client_id,
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 7}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}},
        },
    })
}

/// A prompt for the built-in model that takes so many steps.
pub(super) fn sampling(steps: u32, client_id: &str) -> Json {
    let example = std::fs::read(project("examples/emoji.json")).unwrap();
    let mut prompt: Json = serde_json::from_slice(&example).unwrap();
    prompt["3"]["inputs"]["steps"] = steps.into();
    prompt["5"]["inputs"]["width"] = 64.into();
    prompt["5"]["inputs"]["height"] = 64.into();
    json!({ "client_id": client_id, "prompt": prompt })
}

/// One that is running whenever a test looks.
pub(super) fn endless(client_id: &str) -> Json {
    sampling(10_000, client_id)
}

/// Waits until the prompt runs, or has.
pub(super) fn started(server: &Server, prompt_id: &str) {
    let runs = || server.get_json("/queue")["queue_running"].as_array().is_some_and(|r| !r.is_empty());
    let ended = || !server.get_json(&format!("/history/{prompt_id}"))[prompt_id].is_null();
    eventually(|| (runs() || ended()).then_some(()));
}
