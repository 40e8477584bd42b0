//! Recorded exchanges with the reference server, replayed with nodes that return what was recorded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lattice_graph::{
    CacheStrategy, CallContext, Event, Executor, Extensions, Inputs, InterruptFlag, Node, NodeError,
    NodeOutput, NodeSpec, Prompt, Registry, Value, validate,
};
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

/// What the nodes of the current exchange are to do, by id.
#[derive(Default)]
struct Script {
    ui: HashMap<String, Map<String, Json>>,
    texts: HashMap<String, String>,
    errors: HashMap<String, NodeError>,
}

struct Actor {
    spec: NodeSpec,
    script: Arc<Mutex<Script>>,
}

impl Node for Actor {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn call(&self, ctx: &CallContext<'_>, _inputs: Inputs) -> Result<NodeOutput, NodeError> {
        let script = self.script.lock();
        if let Some(error) = script.errors.get(ctx.node_id) {
            return Err(error.clone());
        }
        if let Some(text) = script.texts.get(ctx.node_id) {
            ctx.show_text(text);
        }
        let ui = script.ui.get(ctx.node_id).cloned();
        Ok(NodeOutput { ui, ..NodeOutput::values(self.spec.outputs.iter().map(|_| Value::NULL)) })
    }

    fn validated_inputs(&self) -> &[&str] {
        if self.spec.name == "LoadImage" { &["image"] } else { &[] }
    }

    fn validate(&self, _ext: &Extensions, inputs: &Inputs) -> Result<(), String> {
        let name = inputs.get("image").and_then(Value::as_json).and_then(Json::as_str).unwrap_or_default();
        Err(format!("Invalid image file: {name}"))
    }
}

fn read(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("test data")).expect("JSON")
}

fn registry(script: &Arc<Mutex<Script>>) -> Registry {
    let info = read("object_info.json");
    let actor = |(class, entry): (&String, &Json)| -> Arc<dyn Node> {
        let spec = NodeSpec::from_object_info(class, entry).expect("an entry");
        Arc::new(Actor { spec, script: script.clone() })
    };
    info.as_object().expect("object").iter().map(actor).collect()
}

/// Text of a binary message of type 3: four bytes of type, four of length, the node id, the text.
fn decode_text(base64: &str) -> (String, String) {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut buffer) = (Vec::new(), 0, 0_u32);
    for c in base64.bytes().filter(|&c| c != b'=') {
        buffer = buffer << 6 | u32::from(value(c));
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    assert_eq!(bytes[..4], [0, 0, 0, 3]);
    let length = usize::from(bytes[7]);
    let text = |range: &[u8]| String::from_utf8(range.to_vec()).expect("UTF-8");
    (text(&bytes[8..8 + length]), text(&bytes[8 + length..]))
}

fn script_of(transcript: &Json) -> Script {
    let mut script = Script::default();
    for message in transcript["ws"].as_array().into_iter().flatten() {
        if let Some(base64) = message["binary_base64"].as_str() {
            let (node, text) = decode_text(base64);
            script.texts.insert(node, text);
        }
        let data = &message["data"];
        let id = |key: &str| data[key].as_str().expect("an id").to_owned();
        match message["type"].as_str() {
            Some("executed") => {
                script.ui.extend(data["output"].as_object().map(|ui| (id("node"), ui.clone())));
            }
            Some("execution_error") => {
                let text = data["exception_message"].as_str().expect("a text").trim_end();
                let error = NodeError::new(data["exception_type"].as_str().expect("a type"), text);
                script.errors.insert(id("node_id"), error);
            }
            _ => {}
        }
    }
    script
}

/// Messages that the engine answers for, without what only the reference can know (tensors as text).
fn comparable(mut message: Json) -> Json {
    if let Some(data) = message["data"].as_object_mut() {
        data.shift_remove("current_inputs");
        if let Some(outputs) = data.get_mut("current_outputs").and_then(Json::as_array_mut) {
            outputs.sort_by_key(ToString::to_string);
        }
    }
    as_doubles(&mut message);
    message
}

/// `1` and `1.0` are the same number to clients.
fn as_doubles(json: &mut Json) {
    match json {
        Json::Number(n) => *json = json!(n.as_f64()),
        Json::Array(list) => list.iter_mut().for_each(as_doubles),
        Json::Object(map) => map.values_mut().for_each(as_doubles),
        _ => {}
    }
}

#[test]
fn recorded_exchanges_are_reproduced() {
    let script = Arc::new(Mutex::new(Script::default()));
    let registry = Arc::new(registry(&script));
    let ext = Extensions::default();
    let mut executor = Executor::new(registry.clone(), ext.clone(), CacheStrategy::Classic);
    let transcripts = read("goldens/api/transcripts.json");
    let mut replayed = 0;
    for transcript in transcripts["transcripts"].as_array().expect("a list") {
        let name = transcript["name"].as_str().expect("a name");
        let body = &transcript["request"]["body"];
        if transcript["request"]["path"] != "/prompt" || body.get("prompt").is_none() {
            continue;
        }
        replayed += 1;
        *script.lock() = script_of(transcript);
        let targets: Option<Vec<String>> = body
            .get("partial_execution_targets")
            .map(|targets| serde_json::from_value(targets.clone()).expect("a list of ids"));
        let prompt = Prompt::parse(body["prompt"].clone());
        let accepted = match prompt.and_then(|prompt| validate(prompt, &registry, &ext, targets.as_deref())) {
            Ok(accepted) => accepted,
            Err(failure) => {
                assert_eq!(
                    (&failure.to_json(), &json!(400)),
                    (&transcript["response"], &transcript["status"]),
                    "{name}"
                );
                continue;
            }
        };
        assert_eq!(json!(accepted.node_errors), transcript["response"]["node_errors"], "{name}");
        let messages = Mutex::new(Vec::new());
        let (id, timestamp) = ("<prompt_id_0>", 0);
        let sink = |event: Event| {
            let message = event.message(id, timestamp);
            messages.lock().extend(message.map(|(kind, data)| json!({"type": kind, "data": data})));
        };
        let empty = json!({});
        let result = executor.run(
            &accepted,
            body.get("extra_data").unwrap_or(&empty),
            &sink,
            &InterruptFlag::default(),
        );
        let from_engine = |message: &&Json| {
            let ours = message["type"].is_string() && message["type"] != "status";
            ours && message["data"].get("node") != Some(&Json::Null)
        };
        let recorded: Vec<Json> = transcript["ws"]
            .as_array()
            .expect("messages")
            .iter()
            .filter(from_engine)
            .map(|message| comparable(message.clone()))
            .collect();
        let got: Vec<Json> = messages.into_inner().into_iter().map(comparable).collect();
        assert_eq!(got, recorded, "{name}");
        let entry =
            transcript["history"].as_object().and_then(|h| h.values().next()).expect("a history entry");
        let outputs: Map<String, Json> =
            result.outputs.iter().map(|(id, ui)| (id.clone(), ui.output.clone().into())).collect();
        let meta: Map<String, Json> =
            result.outputs.iter().map(|(id, ui)| (id.clone(), json!(ui.meta))).collect();
        assert_eq!(json!([outputs, meta]), json!([entry["outputs"], entry["meta"]]), "{name}");
        assert_eq!(entry["status"]["status_str"], result.status.as_str(), "{name}");
        assert_eq!(entry["status"]["completed"], result.status.completed(), "{name}");
    }
    assert!(replayed > 15, "{replayed}");
}

#[test]
fn catalogue_entries_are_written_as_they_were_read() {
    let info = read("object_info.json");
    for (class, entry) in info.as_object().expect("object") {
        let spec = NodeSpec::from_object_info(class, entry).expect("an entry");
        assert_eq!(&spec.object_info(&Extensions::default()), entry, "{class}");
    }
}
