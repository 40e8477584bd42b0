//! What the `#[node]` attribute is made of: how inputs come out of the graph's values and results go back in.

mod arguments;
mod input;
mod output;
mod spec;

pub use lattice_graph::{
    CallContext, Extensions, InputKind, InputSpec, Inputs, ListInputs, Node, NodeError, NodeOutput, NodeSpec,
    Value,
};
pub use lattice_node_macros::{Choice, node};
pub use serde_json::{Map, Value as Json, json};

pub use self::arguments::{Arguments, ListArguments, takes_lists};
pub use self::input::{Choice, FromInput, GraphType, Mismatch, choice_from_input};
pub use self::output::{IntoSlot, NodeResult, Outputs, Ui, WithUi, finish, output_specs};
pub use self::spec::{choices, files, listed_by, object};

/// The classes of node functions: `nodes![image_scale, image_invert]`.
#[macro_export]
macro_rules! nodes {
    ($($node:ident),* $(,)?) => {
        ::std::vec![$($node::class()),*]
    };
}
