//! History entries and queue items in the form clients know.

use indexmap::IndexMap;
use lattice_graph::{RunResult, RunStatus, UiMeta};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value as Json, json};

use crate::hub::now_millis;
use crate::store::{HistoryEntry, QueueItem};

/// Keys of `extra_data` that are secrets: they are not kept in the history.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// How a prompt ended.
pub(crate) struct Outcome {
    /// What the executor says, or why it could not be asked.
    pub(crate) result: Result<RunResult, String>,
    /// `[event, data]` pairs.
    pub(crate) messages: Vec<Json>,
}

/// How a prompt ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Success,
    Error,
    Interrupted,
}

impl Ending {
    pub(crate) const ALL: [Self; 3] = [Self::Success, Self::Error, Self::Interrupted];

    /// As listeners and Prometheus know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<&Result<RunResult, String>> for Ending {
    fn from(result: &Result<RunResult, String>) -> Self {
        match result.as_ref().map(|result| &result.status) {
            Ok(RunStatus::Success) => Self::Success,
            Ok(RunStatus::Interrupted) => Self::Interrupted,
            Ok(RunStatus::Error(_)) | Err(_) => Self::Error,
        }
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    prompt: Item<'a>,
    outputs: IndexMap<&'a str, &'a Map<String, Json>>,
    status: Status<'a>,
    meta: IndexMap<&'a str, &'a UiMeta>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "status_str")]
    text: &'static str,
    completed: bool,
    messages: &'a [Json],
}

/// `[number, id, prompt, extra_data, outputs_to_execute]`.
pub(crate) type Item<'a> = (Json, &'a str, &'a RawValue, &'a RawValue, &'a [String]);

/// A queued prompt as lists show it.
pub(crate) fn item(item: &QueueItem) -> Item<'_> {
    (number(item.number), &item.prompt_id, &item.prompt, &item.extra_data, &item.outputs)
}

/// A queue number: whole ones without a fraction.
pub(crate) fn number(number: f64) -> Json {
    // 2^53: beyond it a float cannot tell whole numbers apart.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        json!(number as i64)
    } else {
        json!(number)
    }
}

/// The history entry of a prompt that has ended.
pub(crate) fn entry(item: &QueueItem, outcome: Outcome) -> serde_json::Result<HistoryEntry> {
    let Outcome { result, mut messages } = outcome;
    let extra_data = public(&item.extra_data)?;
    let (text, completed) = match &result {
        Ok(result) => (result.status.as_str(), result.status.completed()),
        Err(reason) => {
            messages.push(failure(&item.prompt_id, reason));
            ("error", false)
        }
    };
    let outputs = result.as_ref().map(|result| &result.outputs).ok();
    let entry = Entry {
        prompt: (number(item.number), &item.prompt_id, &item.prompt, &extra_data, &item.outputs),
        outputs: outputs.into_iter().flatten().map(|(id, ui)| (id.as_str(), &ui.output)).collect(),
        status: Status { text, completed, messages: &messages },
        meta: outputs.into_iter().flatten().map(|(id, ui)| (id.as_str(), &ui.meta)).collect(),
    };
    Ok(HistoryEntry { prompt_id: item.prompt_id.clone(), entry: to_raw_value(&entry)? })
}

/// The history entry of a prompt that was running when the program last ended.
pub(crate) fn lost(item: &QueueItem) -> serde_json::Result<HistoryEntry> {
    let reason = "The program ended while this prompt was running.".to_owned();
    entry(item, Outcome { result: Err(reason), messages: Vec::new() })
}

/// `extra_data` without secrets.
fn public(extra_data: &RawValue) -> serde_json::Result<Box<RawValue>> {
    let mut fields: Map<String, Json> = serde_json::from_str(extra_data.get())?;
    for secret in SECRETS {
        fields.shift_remove(secret);
    }
    to_raw_value(&fields)
}

/// An `execution_error` that is no node's.
fn failure(prompt_id: &str, reason: &str) -> Json {
    json!(["execution_error", {
        "prompt_id": prompt_id,
        "node_id": null,
        "node_type": null,
        "executed": [],
        "exception_message": reason,
        "exception_type": "RuntimeError",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": now_millis(),
    }])
}
