//! The inputs of one call, taken out by name.

use lattice_graph::{Inputs, ListInputs, NodeError, NodeSpec, Value};
use serde_json::Value as Json;

use super::{FromInput, Mismatch};

/// Inputs of a call.
pub struct Arguments(Inputs);

impl Arguments {
    /// From what the engine gathered.
    pub fn new(inputs: Inputs) -> Self {
        Self(inputs)
    }

    /// An input that must be there.
    pub fn one<T: FromInput>(&mut self, name: &str) -> Result<T, NodeError> {
        let value = self.0.shift_remove(name).ok_or_else(|| missing(name))?;
        take(name, value)
    }

    /// An input that may be absent or null.
    pub fn optional<T: FromInput>(&mut self, name: &str) -> Result<Option<T>, NodeError> {
        match self.0.shift_remove(name) {
            None | Some(Value::Json(Json::Null)) => Ok(None),
            Some(value) => take(name, value).map(Some),
        }
    }

    /// All that nobody has taken.
    pub fn rest(&mut self) -> Inputs {
        std::mem::take(&mut self.0)
    }
}

/// Inputs of a call of a class that takes lists.
pub struct ListArguments(ListInputs);

impl ListArguments {
    /// From what the engine gathered.
    pub fn new(inputs: ListInputs) -> Self {
        Self(inputs)
    }

    /// A whole list.
    pub fn list<T: FromInput>(&mut self, name: &str) -> Result<Vec<T>, NodeError> {
        let values = self.0.shift_remove(name).ok_or_else(|| missing(name))?;
        values.into_iter().map(|value| take(name, value)).collect()
    }

    /// The first element of a list.
    pub fn one<T: FromInput>(&mut self, name: &str) -> Result<T, NodeError> {
        self.optional(name)?.ok_or_else(|| missing(name))
    }

    /// The first element of a list, if there is one.
    pub fn optional<T: FromInput>(&mut self, name: &str) -> Result<Option<T>, NodeError> {
        match self.0.shift_remove(name).into_iter().flatten().next() {
            None | Some(Value::Json(Json::Null)) => Ok(None),
            Some(value) => take(name, value).map(Some),
        }
    }
}

fn take<T: FromInput>(name: &str, value: Value) -> Result<T, NodeError> {
    T::from_input(value)
        .map_err(|mismatch: Mismatch| NodeError::new("TypeError", format!("input `{name}`: {mismatch}")))
}

fn missing(name: &str) -> NodeError {
    NodeError::new("TypeError", format!("input `{name}` is missing"))
}

/// For the engine's one-by-one call of a class that takes lists.
pub fn takes_lists(spec: &NodeSpec) -> NodeError {
    NodeError::new("TypeError", format!("{} takes its inputs as lists", spec.name))
}
