//! Reads a workflow from a file: API format, editor format, or a picture that carries one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{Datelike, Timelike};
use lattice_graph::workflow::{Conversion, LocalTime, SeededChoice, is_workflow};
use lattice_graph::{Extensions, Registry};
use serde_json::{Map, Value as Json, json};

/// A prompt, and what is saved beside it in results.
pub(crate) struct Workflow {
    /// The prompt, node id to node.
    pub(crate) prompt: Map<String, Json>,
    /// `extra_data` of the run: the editor's workflow, if the file holds one.
    pub(crate) extra_data: Json,
}

/// Reads and converts a file.
pub(crate) fn read(file: &Path, registry: &Registry, extensions: &Extensions) -> Result<Workflow> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let json = if looks_like_json(&bytes) {
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no valid JSON", file.display()))?
    } else {
        from_picture(&bytes).with_context(|| format!("in {}", file.display()))?
    };
    from_json(json, registry, extensions).with_context(|| format!("in {}", file.display()))
}

fn looks_like_json(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    text.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'{' | b'['))
}

/// The prompt that made a picture, else the workflow it came from. The prompt comes first: it is exactly what ran.
fn from_picture(bytes: &[u8]) -> Result<Json> {
    let texts = lattice_media::metadata::read(bytes);
    let find = |key: &str| texts.iter().find(|(k, _)| k == key).map(|(_, text)| text);
    let Some(text) = find("prompt").or_else(|| find("workflow")) else {
        bail!("neither a JSON workflow nor a picture that carries one")
    };
    serde_json::from_str(text).context("the workflow in the picture is no valid JSON")
}

fn from_json(json: Json, registry: &Registry, extensions: &Extensions) -> Result<Workflow> {
    if is_workflow(&json) {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64);
        let mut choice = SeededChoice::new(seed);
        let mut choose = |count| choice.choose(count);
        let mut conversion = Conversion { specs: registry, extensions, choose: &mut choose, now: now() };
        let prompt = conversion.convert(&json)?;
        return Ok(Workflow { prompt, extra_data: json!({ "extra_pnginfo": { "workflow": json } }) });
    }
    // What clients send to a server wraps the prompt.
    let json = match json {
        Json::Object(mut body)
            if body.get("prompt").is_some_and(Json::is_object) && !is_node(&body["prompt"]) =>
        {
            body.remove("prompt").unwrap_or_default()
        }
        other => other,
    };
    match json {
        Json::Object(prompt) if prompt.values().any(is_node) => {
            Ok(Workflow { prompt, extra_data: json!({}) })
        }
        _ => bail!(
            "this JSON is no workflow: it has neither `nodes` (editor format) nor nodes with a `class_type`"
        ),
    }
}

fn is_node(json: &Json) -> bool {
    json.get("class_type").is_some()
}

fn now() -> LocalTime {
    let now = chrono::Local::now();
    LocalTime {
        year: now.year(),
        month: now.month(),
        day: now.day(),
        hour: now.hour(),
        minute: now.minute(),
        second: now.second(),
    }
}
