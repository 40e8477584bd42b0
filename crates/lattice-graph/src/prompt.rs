//! Prompts in API format: node id → class and inputs.

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::validate::{ErrorBody, ValidationFailure};

/// A prompt as a client sent it, nothing checked beyond being an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    pub(crate) nodes: IndexMap<String, Json>,
}

impl Prompt {
    /// From the `prompt` field of a request.
    ///
    /// # Errors
    /// `prompt_no_outputs` for an empty list, which some clients send for "nothing"; `invalid_prompt` for anything
    /// else that is not an object.
    pub fn parse(json: Json) -> Result<Self, ValidationFailure> {
        match json {
            Json::Object(nodes) => Ok(Self { nodes: nodes.into_iter().collect() }),
            Json::Array(list) if list.is_empty() => Err(ErrorBody::no_outputs().into()),
            _ => Err(ErrorBody::invalid("The prompt is not an object of nodes.", String::new()).into()),
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The prompt as JSON.
    pub fn to_json(&self) -> Json {
        self.nodes.iter().map(|(id, node)| (id.clone(), node.clone())).collect::<Map<_, _>>().into()
    }

    pub(crate) fn into_json(self) -> Json {
        self.nodes.into_iter().collect::<Map<_, _>>().into()
    }
}

/// Source id and slot, if the input value is a link: a list `[string, number]`.
pub(crate) fn link(value: &Json) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [Json::String(id), Json::Number(slot)] => Some((id, usize::try_from(slot.as_u64()?).ok()?)),
        _ => None,
    }
}
