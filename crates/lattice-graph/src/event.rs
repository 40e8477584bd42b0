//! What happens while a prompt runs, in the order clients see it.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

/// An event of one prompt. Field names follow the WebSocket messages.
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt starts.
    ExecutionStart,
    /// Nodes whose stored output is there at the start, in prompt order.
    ExecutionCached {
        /// Node ids.
        nodes: Vec<String>,
    },
    /// A node starts (None: the prompt has ended).
    Executing {
        /// Node id.
        node: Option<String>,
        /// Node shown to the user.
        display_node: Option<String>,
    },
    /// A node's UI output is there.
    Executed {
        /// Node id.
        node: String,
        /// Node shown to the user.
        display_node: String,
        /// UI output, null if there is none to repeat.
        output: Option<Map<String, Json>>,
    },
    /// State of all nodes that have started.
    ProgressState {
        /// By node id.
        nodes: IndexMap<String, ProgressEntry>,
    },
    /// Progress inside a node.
    Progress {
        /// Node id.
        node: String,
        /// Steps done.
        value: f64,
        /// Steps in all.
        max: f64,
    },
    /// An intermediate picture.
    Preview {
        /// Node id.
        node: String,
        /// Node shown to the user.
        display_node: String,
        /// Where it stems from.
        parent_node: Option<String>,
        /// Outermost original node.
        real_node: String,
        /// The picture.
        image: PreviewImage,
    },
    /// All outputs are done.
    ExecutionSuccess,
    /// A node failed; fields as in the message of the same name.
    ExecutionError(Json),
    /// The user stopped the prompt; fields as in the message of the same name.
    ExecutionInterrupted(Json),
}

/// Progress of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressEntry {
    /// Steps done.
    pub value: f64,
    /// Steps in all.
    pub max: f64,
    /// `pending`, `running`, `finished`, `error`.
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

/// An encoded preview picture.
#[derive(Clone, Debug)]
pub struct PreviewImage {
    /// `image/jpeg` or `image/png`.
    pub mime: &'static str,
    /// The encoded file.
    pub data: Arc<[u8]>,
}

/// Receives events; called from the executing thread, so it must be quick.
pub type EventSink<'a> = &'a (dyn Fn(Event) + Sync);
