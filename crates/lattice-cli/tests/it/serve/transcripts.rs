//! Recorded exchanges with the reference server, replayed.

use base64::Engine;
use serde_json::{Value as Json, json};
use tungstenite::Message;

use super::client::Server;
use crate::common::project;

#[test]
fn recorded_exchanges_repeat() {
    let file = std::fs::read(project("testdata/goldens/api/transcripts.json")).unwrap();
    let file: Json = serde_json::from_slice(&file).unwrap();
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let mut transcripts = file["transcripts"].as_array().unwrap().iter();

    let connect = transcripts.next().unwrap();
    let mut socket = server.socket("golden");
    for message in connect["client_sends"].as_array().unwrap() {
        socket.send(&message.to_string());
    }
    for expected in connect["ws"].as_array().unwrap() {
        assert_eq!(&socket.next_json(), expected);
    }
    for transcript in transcripts {
        replay(&server, &mut socket, transcript);
    }
}

fn replay(server: &Server, socket: &mut super::client::Socket, transcript: &Json) {
    let name = transcript["name"].as_str().unwrap();
    let request = &transcript["request"];
    let path = request["path"].as_str().unwrap();
    let answer = server.request(
        request["method"].as_str().unwrap(),
        path,
        &[("Content-Type", "application/json")],
        request["body"].to_string().as_bytes(),
    );
    assert_eq!(answer.status, transcript["status"], "{name}");
    let response = answer.json();
    let id = response["prompt_id"].as_str().unwrap_or("none").to_owned();
    let expect = |got: Json, expected: &Json, what: &str| {
        let (got, expected) = (plain(got, &id), plain(expected.clone(), &id));
        assert_eq!(got, expected, "{name}: {what}\n got {got:#}\n expected {expected:#}");
    };
    expect(response, &transcript["response"], "response");
    let Some(expected) = transcript["ws"].as_array() else { return };
    let got = socket.until_over(&id);
    for (index, message) in got.into_iter().enumerate() {
        let got = match message {
            Message::Binary(bytes) => {
                json!({ "binary_base64": base64::engine::general_purpose::STANDARD.encode(bytes) })
            }
            text => serde_json::from_str(text.to_text().unwrap()).unwrap(),
        };
        expect(got, expected.get(index).unwrap_or(&Json::Null), &format!("message {index}"));
    }
    expect(server.get_json(&format!("/history/{id}")), &transcript["history"], "history");
}

/// Without what differs from run to run or is up to the implementation.
fn plain(value: Json, id: &str) -> Json {
    match value {
        // 1 and 1.0 are equal to clients.
        Json::Number(n) => json!(n.as_f64()),
        Json::String(text) if text == id => "<prompt_id_0>".into(),
        Json::String(text) => temporary(&text).into(),
        Json::Array(items) => match items.as_slice() {
            // [number, id, prompt, extra_data, outputs]
            [Json::Number(_), Json::String(_), ..] if items.len() == 5 => {
                plain(Json::Array(items[1..].to_vec()), id)
            }
            _ => items.into_iter().map(|item| plain(item, id)).collect(),
        },
        Json::Object(fields) => {
            let field = |(name, value): (String, Json)| {
                let value = match name.as_str() {
                    "timestamp" | "number" | "exception_message" | "traceback" => Json::Null,
                    // Tensors are shown as text.
                    "current_inputs" => value.as_object().unwrap().keys().cloned().collect(),
                    "current_outputs" | "executed" => sorted(value),
                    _ => plain(value, id),
                };
                (if name == id { "<prompt_id_0>".to_owned() } else { name }, value)
            };
            Json::Object(fields.into_iter().map(field).collect())
        }
        other => other,
    }
}

fn sorted(list: Json) -> Json {
    let mut items: Vec<String> =
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect();
    items.sort();
    items.into()
}

/// Names of previews have a random part.
fn temporary(text: &str) -> String {
    match text.strip_prefix("ComfyUI_temp_").and_then(|rest| rest.split_once('_')) {
        Some((_, number)) => format!("ComfyUI_temp_xxxxx_{number}"),
        None => text.to_owned(),
    }
}
