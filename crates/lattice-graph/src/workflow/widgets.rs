//! Which inputs are widgets, and which stored value belongs to which.

use serde_json::{Map, Value as Json, json};

use crate::{Extensions, InputKind, InputSpec, NodeSpec};

/// Types that editors show as widgets, beside lists of choices.
const WIDGET_TYPES: [&str; 13] = [
    "INT",
    "FLOAT",
    "STRING",
    "BOOLEAN",
    "COMBO",
    "MARKDOWN",
    "COLOR",
    "IMAGEUPLOAD",
    "IMAGECOMPARE",
    "WEBCAM",
    "AUDIO_RECORD",
    "LOAD_3D",
    "LOAD_3D_ANIMATION",
];

fn could_be_widget(input: &InputSpec) -> bool {
    match &input.kind {
        InputKind::Choices(_) | InputKind::Combo(_) => true,
        InputKind::Type(t) => WIDGET_TYPES.contains(&t.as_str()),
    }
}

fn flag(input: &InputSpec, option: &str) -> bool {
    input.option(option).is_some_and(|value| match value {
        Json::Bool(b) => *b,
        Json::String(s) => !s.is_empty(),
        _ => false,
    })
}

/// Whether an input is a widget rather than a socket alone.
pub(super) fn is_widget(input: &InputSpec) -> bool {
    could_be_widget(input) && !flag(input, "forceInput")
}

/// How many values of no input follow an input's own: control of seeds, filters, upload buttons.
fn helpers(input: &InputSpec) -> usize {
    let control = flag(input, "control_after_generate");
    match &input.kind {
        InputKind::Type(t) if t == "INT" => {
            usize::from(control || ["seed", "noise_seed"].contains(&input.name.as_str()))
        }
        InputKind::Type(t) if t != "COMBO" => 0,
        _ => {
            let uploads =
                ["image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload"];
            let upload = uploads.iter().any(|option| flag(input, option));
            2 * usize::from(control) + usize::from(upload)
        }
    }
}

/// Number of stored values a node of that class has.
pub(super) fn value_count(spec: &NodeSpec) -> usize {
    spec.inputs.iter().filter(|input| is_widget(input)).map(|input| 1 + helpers(input)).sum()
}

/// The value of each widget, by input name in the order of declaration.
pub(super) fn values(spec: &NodeSpec, stored: Option<&[Json]>, ext: &Extensions) -> Map<String, Json> {
    let stored = stored.unwrap_or_default();
    let all: Vec<&InputSpec> = spec.inputs.iter().filter(|input| could_be_widget(input)).collect();
    let with_forced: usize = all.iter().map(|input| 1 + helpers(input)).sum();
    // Older files also have values for inputs that have become sockets since.
    let forced_stored = stored.len() == with_forced && all.iter().any(|input| !is_widget(input));
    let mut place = 0;
    let mut values = Map::new();
    for input in all {
        if is_widget(input) {
            if let Some(value) = stored.get(place).cloned().or_else(|| default(input, ext)) {
                values.insert(input.name.clone(), value);
            }
        } else if !forced_stored {
            continue;
        }
        place += 1 + helpers(input);
    }
    values
}

/// What a fresh widget holds; None for a list with nothing to choose.
fn default(input: &InputSpec, ext: &Extensions) -> Option<Json> {
    if let Some(default) = input.option("default") {
        return Some(default.clone());
    }
    match &input.kind {
        InputKind::Choices(choices) | InputKind::Combo(choices) => choices.list(ext).into_iter().next(),
        InputKind::Type(t) => match t.as_str() {
            "INT" | "FLOAT" => Some(json!(0)),
            "BOOLEAN" => Some(json!(false)),
            "STRING" | "MARKDOWN" => Some(json!("")),
            _ => None,
        },
    }
}
