//! Values as nodes, and showing any value.

use std::sync::Arc;

use lattice_graph::{Node, Value};
use lattice_media::json::{ascii_json, python_float};
use serde_json::Value as Json;

use crate::node::{Ui, node};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        primitive_string,
        primitive_string_multiline,
        primitive_int,
        primitive_float,
        primitive_boolean,
        preview_any,
    ]
}

/// A text of one line.
#[node(
    name = "PrimitiveString",
    title = "String",
    category = "utils/primitive",
    module = "comfy_extras.nodes_primitive",
    v3
)]
fn primitive_string(#[widget(multiline = false)] value: String) -> String {
    value
}

/// A text.
#[node(
    name = "PrimitiveStringMultiline",
    title = "String (Multiline)",
    category = "utils/primitive",
    module = "comfy_extras.nodes_primitive",
    v3
)]
fn primitive_string_multiline(#[widget(multiline = true)] value: String) -> String {
    value
}

/// A whole number.
#[node(
    name = "PrimitiveInt",
    title = "Int",
    category = "utils/primitive",
    module = "comfy_extras.nodes_primitive",
    v3
)]
fn primitive_int(
    #[widget(min = -9223372036854775807, max = 9223372036854775807, control_after_generate = true)]
    value: i64,
) -> i64 {
    value
}

/// A number.
#[node(
    name = "PrimitiveFloat",
    title = "Float",
    category = "utils/primitive",
    module = "comfy_extras.nodes_primitive",
    v3
)]
fn primitive_float(#[widget(min = -9223372036854775807, max = 9223372036854775807)] value: f64) -> f64 {
    value
}

/// True or false.
#[node(
    name = "PrimitiveBoolean",
    title = "Boolean",
    category = "utils/primitive",
    module = "comfy_extras.nodes_primitive",
    v3
)]
fn primitive_boolean(#[widget] value: bool) -> bool {
    value
}

/// Shows any value as text.
#[node(
    name = "PreviewAny",
    title = "Preview Any",
    category = "utils",
    module = "comfy_extras.nodes_preview_any",
    output_node
)]
fn preview_any(#[widget] source: Value) -> Ui {
    Ui::new("text", vec![shown(&source).into()])
}

/// Texts as they are, other literals as Python prints them, JSON for lists and objects, a short form for the rest.
fn shown(value: &Value) -> String {
    match value {
        Value::Json(Json::Null) => "None".to_owned(),
        Value::Json(Json::Bool(b)) => if *b { "True" } else { "False" }.to_owned(),
        Value::Json(Json::String(text)) => text.clone(),
        Value::Json(Json::Number(n)) => match n.as_f64() {
            Some(f) if n.is_f64() => python_float(f),
            _ => n.to_string(),
        },
        Value::Json(json) => ascii_json(json),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_shown_as_the_reference_prints_them() {
        let cases = [(json!(null), "None"), (json!(true), "True"), (json!("é"), "é"), (json!(1e-7), "1e-07")];
        for (value, text) in cases {
            assert_eq!(shown(&Value::Json(value)), text);
        }
        assert_eq!(shown(&Value::Json(json!([1, 2.0]))), "[1, 2.0]");
    }
}
