//! Workflows against the prompts that the official editor makes of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use lattice_graph::Extensions;
use lattice_graph::workflow::{Catalogue, Conversion, LocalTime, WorkflowError};
use serde_json::{Map, Value as Json, json};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn read(name: &str) -> Json {
    let bytes = std::fs::read(testdata(name)).expect("test data");
    let mut text = Vec::new();
    if name.contains(".json.gz") {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).expect("gzip");
    } else {
        text = bytes;
    }
    serde_json::from_slice(&text).expect("JSON")
}

fn catalogue() -> Catalogue {
    let info = read("object_info.json");
    Catalogue::from_object_info(info.as_object().expect("object")).expect("all entries")
}

fn convert(catalogue: &Catalogue, workflow: &Json) -> Result<Map<String, Json>, WorkflowError> {
    let ext = Extensions::default();
    Conversion { specs: catalogue, extensions: &ext, choose: &mut |_| 0, now: LocalTime::default() }
        .convert(workflow)
}

/// Equal, with numbers compared by value: the editor's pass through doubles.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Display-only widgets that the editor also sends.
fn is_display_only(class: &str, input: &str) -> bool {
    matches!((class, input), ("SaveGLB", "image") | ("PreviewAny", "preview"))
        || ["audioUI", "refresh"].contains(&input)
}

/// Differences in words.
fn differences(case: &Json, got: &Map<String, Json>) -> Vec<String> {
    let expected = case["prompt"].as_object().expect("prompt");
    let mut found = Vec::new();
    let ids = |prompt: &Map<String, Json>| prompt.keys().cloned().collect::<Vec<_>>();
    if ids(expected) != ids(got) {
        found.push(format!("ids {:?} instead of {:?}", ids(got), ids(expected)));
    }
    for (id, node) in expected {
        let Some(other) = got.get(id) else { continue };
        if node.get("class_type") != other.get("class_type") || node["_meta"] != other["_meta"] {
            found.push(format!("{id}: {other} instead of {node}"));
        }
        let class = node["class_type"].as_str().unwrap_or_default();
        let (want, have) =
            (node["inputs"].as_object().expect("inputs"), other["inputs"].as_object().expect("inputs"));
        for name in want.keys().chain(have.keys()) {
            let also = case["also_accept"].get(format!("{id}.{name}")).and_then(Json::as_array);
            let accepted = |value: &Json| also.into_iter().flatten().any(|other| same(other, value));
            let equal = match (want.get(name), have.get(name)) {
                (Some(_), None) => is_display_only(class, name),
                (Some(want), Some(have)) => same(want, have) || accepted(have),
                _ => false,
            };
            if !equal {
                found.push(format!("{id}.{name}: {:?} instead of {:?}", have.get(name), want.get(name)));
            }
        }
    }
    found
}

#[test]
fn workflows_convert_as_in_the_editor() {
    let catalogue = catalogue();
    let mut failures = Vec::new();
    let mut check = |name: &str, case: &Json| match convert(&catalogue, &case["workflow"]) {
        Err(error) => failures.push(format!("{name}: {error}")),
        Ok(got) => failures.extend(differences(case, &got).into_iter().map(|d| format!("{name}: {d}"))),
    };
    let mut count = 0;
    for file in ["workflow_to_prompt.json", "workflow_edge_cases.json"] {
        for case in read(&format!("goldens/api/{file}"))["cases"].as_array().expect("cases") {
            check(case["name"].as_str().unwrap_or(file), case);
            count += 1;
        }
    }
    for (name, case) in read("goldens/api/template_prompts.json.gz")["cases"].as_object().expect("cases") {
        check(name, case);
        count += 1;
    }
    assert!(count > 20);
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_is_no_workflow_is_an_error() {
    let catalogue = Catalogue::default();
    for broken in [
        json!(null),
        json!({}),
        json!({"nodes": 5}),
        json!({"nodes": [{"type": "KSampler"}]}),
        json!({"nodes": [{"id": 1}], "links": [[1, 2]]}),
        // A subgraph within itself.
        json!({"nodes": [{"id": 1, "type": "s"}],
               "definitions": {"subgraphs": [{"id": "s", "nodes": [{"id": 2, "type": "s"}]}]}}),
    ] {
        assert!(convert(&catalogue, &broken).is_err(), "{broken}");
    }
}

#[test]
fn links_in_circles_end() {
    let catalogue = catalogue();
    let circle = json!({"nodes": [
        {"id": 1, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]},
        {"id": 2, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 2}]},
        {"id": 3, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 3}], "widgets_values": ["x"]}],
        "links": [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 1, 0, 3, 0, "IMAGE"]]});
    let prompt = convert(&catalogue, &circle).expect("converted");
    assert_eq!(prompt["3"]["inputs"], json!({"filename_prefix": "x"}));
}

#[test]
fn unknown_nodes_stay_without_a_class() {
    let workflow = json!({"nodes": [
        {"id": 1, "type": "EmptyImage", "widgets_values": [8, 8, 1, 0]},
        {"id": 2, "type": "Mystery", "inputs": [{"name": "image", "type": "IMAGE", "link": 1}], "widgets_values": [1, "last"]}],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]]});
    let prompt = convert(&catalogue(), &workflow).expect("converted");
    assert_eq!(prompt["2"], json!({"inputs": {"UNKNOWN": "last", "image": ["1", 0]}, "_meta": {}}));
}
