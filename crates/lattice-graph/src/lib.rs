//! Prompts and workflows: parsing, validation, ordering, caches, execution.
//!
//! The engine knows nodes only through [`Node`] and [`NodeSpec`], values only as [`Value`]: no tensor, file or HTTP.

mod event;
mod node;
mod object_info;
mod registry;
mod spec;
mod value;

pub use event::{Event, EventSink, NodeFailure, PreviewImage, ProgressEntry, ProgressSnapshot};
pub use node::{
    CallContext, ExpandInput, ExpandLink, ExpandNode, Expansion, INPUT_TYPES, Inputs, ListInputs, Node,
    NodeError, NodeOutput, NodeState, Slot, StandaloneCall,
};
pub use object_info::ObjectInfoError;
pub use registry::Registry;
pub use spec::{Choices, InputKind, InputSpec, NodeSpec, OutputSpec};
pub use value::{Blocker, Extensions, Object, Value};
