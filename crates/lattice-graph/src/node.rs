//! What a node is to the engine.

use std::any::Any;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use crate::{Blocker, Extensions, NodeSpec, PreviewImage, Value};

/// Inputs of one call, by name; missing links are [`Value::NULL`], absent optional inputs are not there.
pub type Inputs = IndexMap<String, Value>;

/// Inputs of a call of an `input_is_list` node.
pub type ListInputs = IndexMap<String, Vec<Value>>;

/// Name under which a validator asks for the types of linked sources.
pub const INPUT_TYPES: &str = "input_types";

/// A node class: a declaration and a function.
pub trait Node: Send + Sync {
    /// The declaration.
    fn spec(&self) -> &NodeSpec;

    /// The function, called once per list index. Long work calls [`CallContext::progress`] or
    /// [`CallContext::check_interrupt`] now and then.
    fn call(&self, ctx: &CallContext<'_>, inputs: Inputs) -> Result<NodeOutput, NodeError>;

    /// The function of an `input_is_list` node.
    fn call_list(&self, _ctx: &CallContext<'_>, _inputs: ListInputs) -> Result<NodeOutput, NodeError> {
        Err(NodeError::new("TypeError", format!("{} takes no lists", self.spec().name)))
    }

    /// Which lazy inputs are needed, given those evaluated so far (unevaluated ones are null). None: the class has no
    /// such function and its lazy inputs are never asked for.
    fn check_lazy(&self, _ctx: &CallContext<'_>, _inputs: &Inputs) -> Option<Result<Vec<String>, NodeError>> {
        None
    }

    /// What the result depends on beside the inputs (`IS_CHANGED`), from literals only (links are null). An error
    /// counts as "changed": the node and everything downstream run again, as they do for NaN in the reference.
    fn fingerprint(&self, _ext: &Extensions, _inputs: &Inputs) -> Option<Result<Json, NodeError>> {
        None
    }

    /// Inputs that [`Node::validate`] judges instead of the engine's own range and membership tests. If
    /// [`INPUT_TYPES`] is among them, the validator gets the map input → type of the linked source under that name
    /// and the engine leaves the types of links to it.
    fn validated_inputs(&self) -> &[&str] {
        &[]
    }

    /// The class's own validator over those of [`Node::validated_inputs`] that are present (links are null): a text
    /// refuses the prompt.
    fn validate(&self, _ext: &Extensions, _inputs: &Inputs) -> Result<(), String> {
        Ok(())
    }
}

/// Result slots, UI output and perhaps a graph to expand into.
#[derive(Clone, Debug, Default)]
pub struct NodeOutput {
    /// One entry per output slot.
    pub slots: Vec<Slot>,
    /// UI output: key to list.
    pub ui: Option<Map<String, Json>>,
    /// Graph that replaces this node; slots may then be [`Slot::Link`]s into it.
    pub expand: Option<Expansion>,
}

/// One result slot of one call.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A value.
    One(Value),
    /// The list of an `is_list` slot.
    Many(Vec<Value>),
    /// What a node of the expansion, or another node of the prompt, gives there.
    Link(ExpandLink),
}

/// A graph a node returns in its place.
#[derive(Clone, Debug, Default)]
pub struct Expansion {
    /// Nodes by local id.
    pub nodes: IndexMap<String, ExpandNode>,
}

/// A node of an expansion.
#[derive(Clone, Debug)]
pub struct ExpandNode {
    /// Class name.
    pub class_type: String,
    /// Its inputs.
    pub inputs: IndexMap<String, ExpandInput>,
    /// Display id, if not the expanding node's.
    pub override_display_id: Option<String>,
}

/// An input of a node of an expansion.
#[derive(Clone, Debug)]
pub enum ExpandInput {
    /// Given as is.
    Value(Value),
    /// Taken from another node.
    Link(ExpandLink),
}

/// A link made by an expansion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpandLink {
    /// Slot of a node of this expansion, by local id.
    Local(String, usize),
    /// Slot of a node outside, as a `rawLink` input gave it.
    Outer(String, usize),
}

impl NodeOutput {
    /// Plain values, one per slot.
    pub fn values(values: impl IntoIterator<Item = Value>) -> Self {
        Self { slots: values.into_iter().map(Slot::One).collect(), ..Self::default() }
    }

    /// A blocker on each of `slots` output slots: no consumer runs; the first reports the message, if there is one.
    pub fn blocked(slots: usize, message: Option<String>) -> Self {
        Self::values(std::iter::repeat_n(Value::Blocker(Blocker { message }), slots))
    }

    /// UI output only.
    pub fn ui(ui: Map<String, Json>) -> Self {
        Self { ui: Some(ui), ..Self::default() }
    }
}

/// Failure of a node.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct NodeError {
    /// Qualified type name as clients know it: `ValueError`, `RuntimeError`, `torch.OutOfMemoryError`.
    pub kind: String,
    /// What went wrong, for people.
    pub message: String,
    /// Causes, outermost first (what the reference calls the traceback).
    pub trace: Vec<String>,
    /// The run was interrupted: not a failure of the node.
    pub interrupted: bool,
}

impl NodeError {
    /// With a type name of the reference.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into(), trace: Vec::new(), interrupted: false }
    }

    /// The user asked to stop.
    pub fn interrupt() -> Self {
        Self { interrupted: true, ..Self::new("InterruptProcessingException", "") }
    }

    /// From any error, with its chain of causes as the trace.
    pub fn from_error(e: &(dyn std::error::Error + 'static)) -> Self {
        let chain = std::iter::successors(Some(e), |e| e.source()).map(ToString::to_string);
        Self { trace: chain.skip(1).collect(), ..Self::new("RuntimeError", e.to_string()) }
    }
}

/// State a node keeps between runs of successive prompts, per node id and class.
pub type NodeState = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

/// What a call may ask of its surroundings.
pub struct CallContext<'a> {
    /// Id of the node in the (expanded) prompt (hidden input `UNIQUE_ID`).
    pub node_id: &'a str,
    /// Index of the call when lists are mapped.
    pub call_index: usize,
    /// Services of the host.
    pub extensions: &'a Extensions,
    /// The prompt as accepted (hidden input `PROMPT`).
    pub prompt: &'a Json,
    /// The prompt with all expansions so far, for classes that declare the hidden input `DYNPROMPT`.
    pub dynamic_prompt: Option<&'a Json>,
    /// `extra_data` of the request (`extra_pnginfo` among it).
    pub extra_data: &'a Json,
    /// State of this node between prompts.
    pub state: &'a NodeState,
    /// Receives (value, max, preview); fails when the run was interrupted.
    pub report: &'a (dyn Fn(f64, f64, Option<PreviewImage>) -> Result<(), NodeError> + Sync),
    /// Receives a text to show on the node.
    pub send_text: &'a (dyn Fn(String) + Sync),
    /// Whether the run was interrupted.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
}

impl CallContext<'_> {
    /// Reports progress `value` of `max`, perhaps with a preview.
    ///
    /// # Errors
    /// When the run was interrupted: pass the error on.
    pub fn progress(&self, value: f64, max: f64, preview: Option<PreviewImage>) -> Result<(), NodeError> {
        (self.report)(value, max, preview)
    }

    /// Shows a text on the node while the prompt runs.
    pub fn show_text(&self, text: impl Into<String>) {
        (self.send_text)(text.into());
    }

    /// What the request wants saved beside pictures (hidden input `EXTRA_PNGINFO`).
    pub fn extra_pnginfo(&self) -> Option<&Json> {
        self.extra_data.get("extra_pnginfo").filter(|v| !v.is_null())
    }

    /// # Errors
    /// When the run was interrupted: pass the error on.
    pub fn check_interrupt(&self) -> Result<(), NodeError> {
        if (self.interrupted)() { Err(NodeError::interrupt()) } else { Ok(()) }
    }

    /// A service of the host.
    ///
    /// # Errors
    /// If the host does not lend it.
    pub fn service<T: Any + Send + Sync>(&self) -> Result<Arc<T>, NodeError> {
        self.extensions.get().ok_or_else(|| {
            NodeError::new("RuntimeError", format!("{} is not available", std::any::type_name::<T>()))
        })
    }
}

/// Surroundings of a node that is called outside of any prompt, as in tests of a single node.
#[derive(Default)]
pub struct StandaloneCall {
    /// Services of the host.
    pub extensions: Extensions,
    /// See [`CallContext::prompt`].
    pub prompt: Json,
    /// See [`CallContext::extra_data`].
    pub extra_data: Json,
    /// See [`CallContext::state`].
    pub state: NodeState,
}

impl StandaloneCall {
    /// With the given services and nothing else.
    pub fn new(extensions: Extensions) -> Self {
        Self { extensions, ..Self::default() }
    }

    /// A context whose reports go nowhere and that is never interrupted.
    pub fn context(&self) -> CallContext<'_> {
        CallContext {
            node_id: "1",
            call_index: 0,
            extensions: &self.extensions,
            prompt: &self.prompt,
            dynamic_prompt: None,
            extra_data: &self.extra_data,
            state: &self.state,
            report: &|_, _, _| Ok(()),
            send_text: &|_| (),
            interrupted: &|| false,
        }
    }
}
