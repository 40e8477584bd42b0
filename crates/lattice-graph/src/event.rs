//! What happens while a prompt runs, in the order clients see it.

use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

/// An event of one prompt, in the order and with the fields of the WebSocket messages.
///
/// The message `executing` with node null that ends a prompt is the host's to send: it comes after the history entry.
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt starts.
    ExecutionStart,
    /// Nodes whose stored output is there at the start, in prompt order.
    ExecutionCached {
        /// Node ids.
        nodes: Vec<String>,
    },
    /// A node starts.
    Executing {
        /// Node id.
        node: String,
        /// Node shown to the user.
        display_node: String,
    },
    /// A node's UI output is there.
    Executed {
        /// Node id.
        node: String,
        /// Node shown to the user.
        display_node: String,
        /// UI output, None if there is none to repeat.
        output: Option<Map<String, Json>>,
    },
    /// The state of some node changed.
    ProgressState(ProgressSnapshot),
    /// Progress inside a node; follows the [`Event::ProgressState`] that tells the same. Clients that know preview
    /// metadata get the preview before the progress message, others after it.
    Progress {
        /// The node, its steps done and in all.
        entry: ProgressEntry,
        /// An intermediate picture.
        preview: Option<PreviewImage>,
    },
    /// A text to show on a node.
    Text {
        /// Node id.
        node: String,
        /// The text.
        text: String,
    },
    /// All outputs are done.
    ExecutionSuccess,
    /// A node failed; the prompt is over.
    ExecutionError(NodeFailure),
    /// A node was not run because of a blocker with a message; the prompt goes on.
    ExecutionBlocked(NodeFailure),
    /// The user stopped the prompt.
    ExecutionInterrupted {
        /// Node that was running.
        node_id: String,
        /// Its class.
        node_type: String,
        /// Nodes completed in this prompt.
        executed: Vec<String>,
    },
}

/// Fields of `execution_error`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeFailure {
    /// Node that failed; for one from an expansion the original node.
    pub node_id: String,
    /// Its class.
    pub node_type: String,
    /// Nodes completed in this prompt, cached ones not included.
    pub executed: Vec<String>,
    /// What went wrong, for people; ends with a line break.
    pub exception_message: String,
    /// Qualified type name, such as `RuntimeError`.
    pub exception_type: String,
    /// Causes.
    pub traceback: Vec<String>,
    /// Input name to list of values, non-scalars as text.
    pub current_inputs: Json,
    /// Ids of all nodes of the prompt.
    pub current_outputs: Vec<String>,
}

/// Progress of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgressEntry {
    /// Steps done.
    pub value: f64,
    /// Steps in all.
    pub max: f64,
    /// `running` or `finished`.
    pub state: &'static str,
    /// Node id.
    pub node_id: String,
    /// Node shown to the user.
    pub display_node_id: String,
    /// Where it stems from.
    pub parent_node_id: Option<String>,
    /// Outermost original node.
    pub real_node_id: String,
}

/// The progress of all nodes touched so far, as it was when the event was made.
///
/// A message that lists all nodes at each step is quadratic in the number of nodes; so the event holds a place in a
/// shared log of changes, and only who sends the message pays for the list.
#[derive(Clone, Debug, Default)]
pub struct ProgressSnapshot {
    log: Arc<Mutex<ProgressLog>>,
    len: usize,
}

#[derive(Debug, Default)]
struct ProgressLog {
    changes: Vec<ProgressEntry>,
    /// All changes folded: what a snapshot holds as long as no later one is made.
    latest: IndexMap<String, ProgressEntry>,
}

impl ProgressSnapshot {
    /// The state after one more change to the latest one.
    pub fn push(&mut self, entry: ProgressEntry) {
        let mut log = self.log.lock();
        log.latest.insert(entry.node_id.clone(), entry.clone());
        log.changes.push(entry);
        self.len = log.changes.len();
    }

    /// The change that this snapshot ends with.
    pub fn latest(&self) -> Option<ProgressEntry> {
        self.log.lock().changes.get(self.len.checked_sub(1)?).cloned()
    }

    /// The state of one node now.
    pub(crate) fn entry(&self, id: &str) -> Option<ProgressEntry> {
        self.log.lock().latest.get(id).cloned()
    }

    /// How many nodes have been touched by now.
    pub fn touched(&self) -> usize {
        self.log.lock().latest.len()
    }

    /// All nodes touched so far, in the order of first touch.
    pub fn nodes(&self) -> IndexMap<String, ProgressEntry> {
        let log = self.log.lock();
        if self.len == log.changes.len() {
            return log.latest.clone();
        }
        log.changes.iter().take(self.len).map(|entry| (entry.node_id.clone(), entry.clone())).collect()
    }
}

/// An encoded preview picture.
#[derive(Clone, Debug)]
pub struct PreviewImage {
    /// `image/jpeg` or `image/png`.
    pub mime: &'static str,
    /// The encoded file.
    pub data: Arc<[u8]>,
}

/// Receives events; called from executing threads, so it must be quick.
pub type EventSink<'a> = &'a (dyn Fn(Event) + Sync);

impl Event {
    /// Type and data of the JSON message, None for a text (which travels as a binary message).
    ///
    /// `timestamp` is in milliseconds since the epoch.
    pub fn message(&self, prompt_id: &str, timestamp: i64) -> Option<(&'static str, Json)> {
        let stamped = |mut data: Json| {
            data["prompt_id"] = prompt_id.into();
            data["timestamp"] = timestamp.into();
            data
        };
        Some(match self {
            Self::ExecutionStart => ("execution_start", stamped(json!({}))),
            Self::ExecutionCached { nodes } => ("execution_cached", stamped(json!({ "nodes": nodes }))),
            Self::Executing { node, display_node } => {
                ("executing", json!({ "node": node, "display_node": display_node, "prompt_id": prompt_id }))
            }
            Self::Executed { node, display_node, output } => (
                "executed",
                json!({ "node": node, "display_node": display_node, "output": output, "prompt_id": prompt_id }),
            ),
            Self::ProgressState(snapshot) => {
                let nodes: Map<String, Json> = snapshot
                    .nodes()
                    .into_iter()
                    .map(|(id, entry)| {
                        let mut entry = json!(entry);
                        entry["prompt_id"] = prompt_id.into();
                        (id, entry)
                    })
                    .collect();
                ("progress_state", json!({ "prompt_id": prompt_id, "nodes": nodes }))
            }
            Self::Progress { entry, .. } => (
                "progress",
                json!({ "value": entry.value, "max": entry.max, "prompt_id": prompt_id, "node": entry.node_id }),
            ),
            Self::Text { .. } => return None,
            Self::ExecutionSuccess => ("execution_success", stamped(json!({}))),
            Self::ExecutionError(failure) => ("execution_error", stamped(json!(failure))),
            Self::ExecutionBlocked(failure) => {
                let mut data = json!(failure);
                data["prompt_id"] = prompt_id.into();
                ("execution_error", data)
            }
            Self::ExecutionInterrupted { node_id, node_type, executed } => (
                "execution_interrupted",
                stamped(json!({ "node_id": node_id, "node_type": node_type, "executed": executed })),
            ),
        })
    }

    /// Whether the message is kept in the `messages` of the history entry.
    pub fn in_history(&self) -> bool {
        matches!(
            self,
            Self::ExecutionStart
                | Self::ExecutionCached { .. }
                | Self::ExecutionSuccess
                | Self::ExecutionError(_)
                | Self::ExecutionInterrupted { .. }
        )
    }

    /// Whether it goes to all sockets when the prompt belongs to none; the other events are then not sent at all.
    pub fn broadcast_without_owner(&self) -> bool {
        matches!(
            self,
            Self::ProgressState(_)
                | Self::Progress { .. }
                | Self::Text { .. }
                | Self::ExecutionBlocked(_)
                | Self::ExecutionInterrupted { .. }
        )
    }
}
