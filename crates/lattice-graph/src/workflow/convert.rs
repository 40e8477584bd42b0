//! The prompt of an unfolded workflow.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::flatten::Flat;
use super::links::{Source, is_virtual, resolve};
use super::model::{FileInput, FileNode};
use super::{Conversion, text, widgets};
use crate::{NodeSpec, prompt, python};

/// Classes whose `filename_prefix` is rewritten.
const SAVERS: [&str; 11] = [
    "SaveImage",
    "SaveAnimatedWEBP",
    "SaveWEBM",
    "SaveAudio",
    "SaveGLB",
    "SaveAnimatedPNG",
    "CLIPSave",
    "VAESave",
    "ModelSave",
    "LoraSave",
    "SaveLatent",
];

/// Titles that the English editor has of its own.
const TITLES: [(&str, &str); 5] = [
    ("ImageBlend", "Image Blend"),
    ("ImageBlur", "Image Blur"),
    ("ImageQuantize", "Image Quantize"),
    ("ImageSharpen", "Image Sharpen"),
    ("ImageScaleToTotalPixels", "Scale Image to Total Pixels"),
];

pub(super) fn convert(flat: &Flat, conversion: &mut Conversion<'_>) -> Map<String, Json> {
    let mut entries: Vec<(String, Json)> = Vec::new();
    for &(level, index) in &flat.order {
        let node = flat.node(level, index);
        if is_virtual(&node.kind) || node.is_muted() || node.is_bypassed() {
            continue;
        }
        entries.push((id(flat, level, index), entry(flat, level, node, conversion)));
    }
    // Object keys that are whole numbers come first, in numerical order, as they do in the editor.
    entries.sort_by_key(|(id, _)| array_index(id).map_or((1, 0), |index| (0, index)));
    let ids: HashSet<String> = entries.iter().map(|(id, _)| id.clone()).collect();
    for (_, entry) in &mut entries {
        if let Some(inputs) = entry.get_mut("inputs").and_then(Json::as_object_mut) {
            inputs.retain(|_, value| prompt::link(value).is_none_or(|(source, _)| ids.contains(source)));
        }
    }
    entries.into_iter().collect()
}

fn id(flat: &Flat, level: usize, node: usize) -> String {
    format!("{}{}", flat.levels[level].prefix, flat.node(level, node).id)
}

/// The number a key stands for, if it is one that JavaScript objects sort by.
fn array_index(id: &str) -> Option<u32> {
    let index = id.parse::<u32>().ok().filter(|&index| index < u32::MAX)?;
    (index.to_string() == id).then_some(index)
}

fn entry(flat: &Flat, level: usize, node: &FileNode, conversion: &mut Conversion<'_>) -> Json {
    let Some(spec) = conversion.specs.spec(&node.kind) else {
        return json!({ "inputs": unknown_inputs(flat, level, node, conversion), "_meta": {} });
    };
    let mut inputs = widgets::values(spec, node.values.as_deref(), conversion.extensions);
    for slot in &node.inputs {
        if let Some(value) = linked_value(flat, level, slot, conversion) {
            inputs.insert(slot.name.clone(), value);
        }
    }
    let linked: HashSet<&str> =
        node.inputs.iter().filter(|s| s.link.is_some()).map(|s| s.name.as_str()).collect();
    for (name, value) in &mut inputs {
        let is_link = linked.contains(name.as_str()) && prompt::link(value).is_some();
        if !is_link {
            *value = literal(flat, spec, name, value.take(), conversion);
        }
    }
    json!({ "inputs": inputs, "class_type": spec.name, "_meta": { "title": title(node, spec) } })
}

/// The value of a widget as it is put into the prompt.
fn literal(flat: &Flat, spec: &NodeSpec, name: &str, value: Json, conversion: &mut Conversion<'_>) -> Json {
    match value {
        Json::Array(list) => json!({ "__value__": list }),
        Json::String(s) => {
            let dynamic = spec.input(name).and_then(|input| input.option("dynamicPrompts"));
            let s = if dynamic.and_then(Json::as_bool).unwrap_or(false) {
                text::dynamic_prompt(&s, conversion.choose)
            } else if name == "filename_prefix" && SAVERS.contains(&spec.name.as_str()) {
                replaced(flat, &s, conversion)
            } else {
                s
            };
            s.into()
        }
        other => other,
    }
}

/// The widget value that `%node.widget%` names: of the node with that name for search and replace, else that title.
fn widget_text(flat: &Flat, conversion: &Conversion<'_>, name: &str, widget: &str) -> Option<String> {
    let all = || flat.levels.iter().flat_map(|level| &level.graph.nodes);
    let searched =
        all().find(|node| node.properties.get("Node name for S&R").and_then(Json::as_str) == Some(name));
    let titled = || {
        all().find(|node| match (&node.title, conversion.specs.spec(&node.kind)) {
            (Some(title), _) => title == name,
            (None, Some(spec)) => title(node, spec) == name,
            (None, None) => false,
        })
    };
    let node = searched.or_else(titled)?;
    let spec = conversion.specs.spec(&node.kind)?;
    match widgets::values(spec, node.values.as_deref(), conversion.extensions).get(widget)? {
        // As a browser writes numbers: 1.0 is 1.
        Json::Number(n) => Some(n.as_f64().map_or_else(|| n.to_string(), |f| f.to_string())),
        Json::Bool(b) => Some(b.to_string()),
        value => Some(python::text(value)),
    }
}

fn title(node: &FileNode, spec: &NodeSpec) -> String {
    let own = TITLES.iter().find(|(class, _)| *class == spec.name).map(|(_, title)| *title);
    node.title.clone().unwrap_or_else(|| own.unwrap_or_else(|| spec.title()).to_owned())
}

/// A node of a class that nobody knows keeps its links and the last of its values.
fn unknown_inputs(
    flat: &Flat,
    level: usize,
    node: &FileNode,
    conversion: &Conversion<'_>,
) -> Map<String, Json> {
    let mut inputs = Map::new();
    if let Some(last) = node.values.as_ref().and_then(|values| values.last()) {
        inputs.insert("UNKNOWN".into(), last.clone());
    }
    for slot in &node.inputs {
        if let Some(value) = linked_value(flat, level, slot, conversion) {
            inputs.insert(slot.name.clone(), value);
        }
    }
    inputs
}

/// What the link of a slot puts into the prompt: a link to where it really comes from, or a literal.
fn linked_value(flat: &Flat, level: usize, slot: &FileInput, conversion: &Conversion<'_>) -> Option<Json> {
    Some(match resolve(flat, conversion.specs, level, slot.link?, &slot.kind)? {
        Source::Node(level, node, output) => json!([id(flat, level, node), output]),
        Source::Rewritten(Json::String(text)) => replaced(flat, &text, conversion).into(),
        Source::Literal(value) | Source::Rewritten(value) => value,
    })
}

/// A text with the editor's replacements made.
fn replaced(flat: &Flat, text: &str, conversion: &Conversion<'_>) -> String {
    text::replace(text, &conversion.now, |node, widget| widget_text(flat, conversion, node, widget))
}
