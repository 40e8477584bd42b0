//! Every node's /object_info entry is the reference's, field for field and in its order.

use std::path::Path;

use lattice_graph::Extensions;
use lattice_nodes::{coverage, registry};
use serde_json::{Map, Value as Json};

/// Nodes that come with the reference as an extra, which its catalogue leaves out.
const EXTRAS: [&str; 1] = ["SaveImageWebsocket"];

fn reference() -> Map<String, Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/object_info.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Removes what is ours to word: descriptions and tooltips. The reference file has them emptied.
fn without_prose(mut entry: Json) -> Json {
    entry["description"] = "".into();
    let inputs = entry["input"].as_object_mut().unwrap();
    let sections = inputs.iter_mut().filter(|(section, _)| *section != "hidden").map(|(_, section)| section);
    for input in sections.flat_map(|section| section.as_object_mut().unwrap().values_mut()) {
        if let Some(options) = input.get_mut(1).and_then(Json::as_object_mut) {
            options.shift_remove("tooltip");
        }
    }
    entry
}

/// With the order of fields: `Map` compares as a set.
fn in_order(entry: &Json) -> String {
    serde_json::to_string_pretty(entry).unwrap()
}

#[test]
fn every_entry_is_the_references() {
    let reference = reference();
    let registry = registry();
    let wrong: Vec<String> = registry
        .iter()
        .filter(|(name, _)| !EXTRAS.contains(name))
        .filter_map(|(name, node)| {
            let Some(theirs) = reference.get(name) else {
                return Some(format!("{name} is not in the reference"));
            };
            // Without folders the lists of files are empty, as they are in the reference file.
            let ours = in_order(&without_prose(node.spec().object_info(&Extensions::default())));
            let theirs = in_order(theirs);
            let differing = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
            (ours != theirs).then(|| match differing {
                Some((ours, theirs)) => format!("{name}: ours {} theirs {}", ours.trim(), theirs.trim()),
                None => {
                    format!("{name}: {} lines, reference {}", ours.lines().count(), theirs.lines().count())
                }
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), registry.len(), wrong.join("\n"));
}

#[test]
fn extras_are_there() {
    let registry = registry();
    for name in EXTRAS {
        let entry = registry.get(name).unwrap().spec().object_info(&Extensions::default());
        assert!(entry["python_module"].as_str().unwrap().starts_with("custom_nodes."), "{name}");
    }
}

#[test]
fn every_node_says_what_it_does() {
    let registry = registry();
    let silent: Vec<_> =
        registry.iter().filter(|(_, n)| n.spec().description.is_empty()).map(|n| n.0).collect();
    assert!(silent.is_empty(), "no description: {silent:?}");
}

#[test]
fn coverage_counts_the_whole_reference() {
    let coverage = coverage();
    let reference = reference();
    let listed = coverage.values().map(|c| c.present.len() + c.missing.len()).sum::<usize>();
    assert_eq!(listed, reference.len());
    assert_eq!(coverage.values().map(|c| c.present.len()).sum::<usize>(), registry().len() - EXTRAS.len());
    for (category, nodes) in &coverage {
        for name in nodes.present.iter().chain(&nodes.missing) {
            assert_eq!(reference[*name]["category"].as_str(), Some(*category), "{name}");
        }
    }
}
