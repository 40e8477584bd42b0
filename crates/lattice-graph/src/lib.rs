//! Prompts and workflows: parsing, validation, ordering, caches, execution.
//!
//! The engine knows nodes only through [`Node`] and [`NodeSpec`], values only as [`Value`]: no tensor, file or HTTP.

mod cache;
mod event;
mod exec;
mod key;
mod node;
mod object_info;
mod prompt;
mod python;
mod registry;
mod spec;
mod validate;
mod value;
pub mod workflow;

pub use cache::{CacheStrategy, MemoryProbe, UiMeta, UiOutput};
pub use event::{Event, EventSink, NodeFailure, PreviewImage, ProgressEntry, ProgressSnapshot};
pub use exec::{Executor, InterruptFlag, RunResult, RunStatus};
pub use node::{
    CallContext, ExpandInput, ExpandLink, ExpandNode, Expansion, INPUT_TYPES, Inputs, ListInputs, Node,
    NodeError, NodeOutput, NodeState, Slot, StandaloneCall,
};
pub use object_info::ObjectInfoError;
pub use prompt::Prompt;
pub use registry::Registry;
pub use spec::{Choices, InputKind, InputSpec, NodeSpec, OutputSpec};
pub use validate::{
    Accepted, ErrorBody, InputError, NoInfo, NodeErrorEntry, NodeErrors, ValidationFailure, validate,
};
pub use value::{Blocker, Extensions, Object, Value};
