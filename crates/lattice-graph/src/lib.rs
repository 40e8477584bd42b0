//! Prompts and workflows: parsing, validation, ordering, caches, execution.
//!
//! The engine knows nodes only through [`Node`] and [`NodeSpec`], values only as [`Value`]: no tensor, file or HTTP.

mod event;
mod node;
mod spec;
mod value;

pub use event::{Event, EventSink, PreviewImage, ProgressEntry};
pub use node::{
    CallContext, ExpandNode, Expansion, Inputs, ListInputs, Node, NodeError, NodeOutput, NodeState, Slot,
};
pub use spec::{Choices, InputKind, InputSpec, NodeSpec, OutputSpec};
pub use value::{Blocker, Extensions, Object, Value};
