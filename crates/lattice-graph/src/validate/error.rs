//! What a server answers when a prompt is not valid.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::InputSpec;
use crate::{Extensions, python};

/// Why a prompt is refused, in the shape clients know.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{error}")]
pub struct ValidationFailure {
    /// The reason.
    pub error: ErrorBody,
    /// Errors by node.
    pub node_errors: Box<NodeErrors>,
}

/// Errors by node id; only nodes with errors of their own.
pub type NodeErrors = IndexMap<String, NodeErrorEntry>;

/// Reason for refusing a whole prompt.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct ErrorBody {
    /// Kind, for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Kind, for people.
    pub message: String,
    /// Which node or input.
    pub details: String,
    /// Always empty.
    pub extra_info: NoInfo,
}

/// An empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NoInfo {}

/// Errors of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeErrorEntry {
    /// The errors.
    pub errors: Vec<InputError>,
    /// Output nodes that cannot run because of them.
    pub dependent_outputs: Vec<String>,
    /// Class of the node.
    pub class_type: String,
}

/// One error of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputError {
    /// Kind, for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Kind, for people.
    pub message: String,
    /// Input and reason.
    pub details: String,
    /// Input name, its declaration, the value received, and more by kind.
    pub extra_info: Json,
}

impl ValidationFailure {
    /// The reply body.
    pub fn to_json(&self) -> Json {
        json!(self)
    }
}

impl From<ErrorBody> for ValidationFailure {
    fn from(error: ErrorBody) -> Self {
        Self { error, node_errors: Box::default() }
    }
}

impl ErrorBody {
    fn new(kind: &'static str, message: impl Into<String>, details: String) -> Self {
        Self { kind, message: message.into(), details, extra_info: NoInfo {} }
    }

    /// A request without a prompt.
    pub fn no_prompt() -> Self {
        Self::new("no_prompt", "No prompt provided", "No prompt provided".into())
    }

    pub(crate) fn invalid(message: impl Into<String>, details: String) -> Self {
        Self::new("invalid_prompt", message, details)
    }

    pub(crate) fn no_outputs() -> Self {
        Self::new("prompt_no_outputs", "Prompt has no outputs", String::new())
    }

    pub(crate) fn outputs_failed(details: String) -> Self {
        Self::new("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    }
}

/// What an exception of the reference would be: its type and text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exception {
    pub kind: &'static str,
    pub text: String,
}

impl Exception {
    /// A node id or field that is not there.
    pub(super) fn key(key: &Json) -> Self {
        Self { kind: "KeyError", text: python::repr(key) }
    }
}

/// `[type, options]` of an input, with an empty options object where the declaration has none.
pub(super) fn input_config(spec: &InputSpec, ext: &Extensions) -> Json {
    let mut entry = spec.entry(ext);
    if let Json::Array(pair) = &mut entry
        && pair.len() == 1
    {
        pair.push(json!({}));
    }
    entry
}

/// Makes the errors of one input.
pub(super) struct ErrorsOf<'a> {
    pub spec: &'a InputSpec,
    pub ext: &'a Extensions,
}

impl ErrorsOf<'_> {
    fn error(&self, kind: &'static str, message: impl Into<String>, reason: &str, extra: Json) -> InputError {
        let name = &self.spec.name;
        let mut extra_info = json!({ "input_name": name, "input_config": input_config(self.spec, self.ext) });
        if let (Json::Object(all), Json::Object(extra)) = (&mut extra_info, extra) {
            all.extend(extra);
        }
        InputError { kind, message: message.into(), details: format!("{name}{reason}"), extra_info }
    }

    pub(super) fn missing(&self) -> InputError {
        InputError {
            extra_info: json!({ "input_name": self.spec.name }),
            ..self.error("required_input_missing", "Required input is missing", "", json!({}))
        }
    }

    pub(super) fn bad_link(&self, value: &Json) -> InputError {
        let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
        self.error("bad_linked_input", message, "", json!({ "received_value": value }))
    }

    pub(super) fn type_mismatch(&self, received: &Json, link: &Json) -> InputError {
        let wanted = self.spec.kind.name(self.ext);
        let (got, want) = (python::text(received), python::text(&wanted));
        self.error(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            &format!(", received_type({got}) mismatch input_type({want})"),
            json!({ "received_type": received, "linked_node": link }),
        )
    }

    pub(super) fn not_convertible(&self, kind: &str, value: &Json, reason: &str) -> InputError {
        self.error(
            "invalid_input_type",
            format!("Failed to convert an input value to a {kind} value"),
            &format!(", {}, {reason}", python::text(value)),
            json!({ "received_value": value, "exception_message": reason }),
        )
    }

    pub(super) fn out_of_range(&self, value: &Json, bound: &Json, below: bool) -> InputError {
        let (kind, word) = if below {
            ("value_smaller_than_min", "smaller than min")
        } else {
            ("value_bigger_than_max", "bigger than max")
        };
        let message = format!("Value {} {word} of {}", python::text(value), python::text(bound));
        self.error(kind, message, "", json!({ "received_value": value }))
    }

    pub(super) fn not_in_list(&self, value: &Json, choices: &[Json]) -> InputError {
        // Long lists would drown the message.
        let short = choices.len() <= 20;
        let listed = if short {
            python::repr(&Json::Array(choices.to_vec()))
        } else {
            format!("(list of length {})", choices.len())
        };
        let reason = format!(": '{}' not in {listed}", python::text(value));
        let mut error =
            self.error("value_not_in_list", "Value not in list", &reason, json!({ "received_value": value }));
        if !short {
            error.extra_info["input_config"] = Json::Null;
        }
        error
    }

    pub(super) fn inner_exception(&self, exception: &Exception, link: &Json) -> InputError {
        InputError {
            details: exception.text.clone(),
            ..self.error(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                "",
                json!({
                    "exception_message": exception.text,
                    "exception_type": exception.kind,
                    "traceback": [],
                    "linked_node": link,
                }),
            )
        }
    }
}

/// The class's own validator refused an input.
pub(super) fn custom_failed(input: &str, reason: &str) -> InputError {
    let details = if reason.is_empty() { input.to_owned() } else { format!("{input} - {reason}") };
    InputError {
        kind: "custom_validation_failed",
        message: "Custom validation failed for node".into(),
        details,
        extra_info: json!({ "input_name": input }),
    }
}

/// A node that could not even be looked at.
pub(super) fn exception(exception: &Exception) -> InputError {
    InputError {
        kind: "exception_during_validation",
        message: "Exception when validating node".into(),
        details: exception.text.clone(),
        extra_info: json!({ "exception_type": exception.kind, "traceback": [] }),
    }
}
