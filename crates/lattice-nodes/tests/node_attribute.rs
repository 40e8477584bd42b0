//! What `#[node]` makes of functions.

#![allow(clippy::unnecessary_wraps)] // the attribute asks for these signatures

use std::sync::Arc;

use lattice_graph::{
    CallContext, Extensions, Inputs, ListInputs, Node, NodeError, NodeOutput, Slot, StandaloneCall, Value,
};
use lattice_nodes::node::{Choice, Ui, WithUi, node};
use lattice_nodes::{Error, Result};
use serde_json::{Value as Json, json};

/// How to join.
#[derive(Choice, Clone, Copy, PartialEq, Debug)]
enum Order {
    #[choice("first first")]
    Kept,
    #[choice("last first")]
    Reversed,
}

const LIMIT: u64 = u64::MAX;

/// Joins texts.
///
/// Twice, if asked
/// for.
#[node(
    name = "Join",
    title = "Join Texts",
    category = "test/text",
    module = "tests",
    outputs("text", "length")
)]
fn join(
    /// What comes first.
    #[widget(default = "a", multiline = true)]
    a: &str,
    #[name("B")] b: String,
    order: Order,
    #[widget(default = -1, min = -5, max = LIMIT, nested = {"k": [1, 2.5]})] times: i64,
    separator: Option<String>,
) -> Result<(String, usize)> {
    let parts = if order == Order::Kept { [a, &b] } else { [&b, a] };
    let times = usize::try_from(times).map_err(|_| Error::value("times is negative"))?;
    let text = parts.join(separator.as_deref().unwrap_or("-")).repeat(times);
    let length = text.len();
    Ok((text, length))
}

/// Sums up.
#[node(name = "Sum", category = "test", module = "tests", v3, input_is_list, hidden(prompt, unique_id))]
fn sum(#[kind("INT,FLOAT")] numbers: &[f64], #[widget] factor: f64) -> Vec<f64> {
    numbers.iter().map(|n| n * factor).collect()
}

/// Shows a value.
#[node(
    name = "Show", category = "test", module = "tests", output_node, experimental,
    fingerprint = always_new, validate(kind, with = judge), lazy = wanted
)]
fn show(
    ctx: &CallContext<'_>,
    #[combo("auto", "mp4")]
    #[widget(default = "auto", upload = true)]
    kind: String,
    source: Option<Value>,
) -> WithUi<(Value, bool)> {
    let shown = format!("{} {kind} {source:?}", ctx.node_id);
    WithUi((source.clone().unwrap_or(Value::NULL), source.is_some()), Ui::new("text", vec![shown.into()]))
}

fn always_new(_: &Extensions, inputs: &Inputs) -> Result<Json> {
    Ok(inputs.len().into())
}

fn judge(_: &Extensions, inputs: &Inputs) -> Result<(), String> {
    if inputs.contains_key("kind") { Ok(()) } else { Err("no kind".into()) }
}

fn wanted(_: &CallContext<'_>, _: &Inputs) -> Result<Vec<String>> {
    Ok(vec!["source".into()])
}

fn with_context<T>(f: impl FnOnce(&CallContext<'_>) -> T) -> T {
    f(&StandaloneCall::default().context())
}

fn inputs<const N: usize>(values: [(&str, Json); N]) -> Inputs {
    values.into_iter().map(|(name, value)| (name.to_owned(), Value::Json(value))).collect()
}

fn call<const N: usize>(node: &Arc<dyn Node>, values: [(&str, Json); N]) -> Result<NodeOutput, NodeError> {
    with_context(|ctx| node.call(ctx, inputs(values)))
}

/// The literals of plain slots.
fn literals(output: &NodeOutput) -> Vec<Json> {
    let literal = |slot: &Slot| match slot {
        Slot::One(value) => value.as_json().cloned().unwrap(),
        Slot::Many(values) => values.iter().map(|v| v.as_json().cloned().unwrap()).collect(),
        Slot::Link(..) => panic!("no link expected"),
    };
    output.slots.iter().map(literal).collect()
}

#[test]
fn a_declaration_says_what_the_function_says() {
    let entry = join::class().spec().object_info(&Extensions::default());
    let expected = json!({
        "input": {
            "required": {
                "a": ["STRING", {"default": "a", "multiline": true, "tooltip": "What comes first."}],
                "B": ["STRING"],
                "order": [["first first", "last first"]],
                "times": ["INT", {"default": -1, "min": -5, "max": u64::MAX, "nested": {"k": [1, 2.5]}}],
            },
            "optional": {"separator": ["STRING"]},
        },
        "input_order": {"required": ["a", "B", "order", "times"], "optional": ["separator"]},
        "output": ["STRING", "INT"],
        "output_is_list": [false, false],
        "output_name": ["text", "length"],
        "name": "Join",
        "display_name": "Join Texts",
        "description": "Joins texts.\n\nTwice, if asked for.",
        "python_module": "tests",
        "category": "test/text",
        "output_node": false,
    });
    assert_eq!(serde_json::to_string(&entry).unwrap(), serde_json::to_string(&expected).unwrap());
}

#[test]
fn newer_classes_always_show_their_flags() {
    let entry = sum::class().spec().object_info(&Extensions::default());
    assert_eq!(entry["input"]["required"], json!({"numbers": ["INT,FLOAT"], "factor": ["FLOAT", {}]}));
    assert_eq!(entry["input"]["hidden"], json!({"prompt": ["PROMPT"], "unique_id": ["UNIQUE_ID"]}));
    assert_eq!((&entry["output_is_list"], &entry["display_name"]), (&json!([true]), &Json::Null));
    assert_eq!(
        [&entry["deprecated"], &entry["experimental"], &entry["api_node"]],
        [false; 3].map(Json::from).each_ref()
    );
    let entry = show::class().spec().object_info(&Extensions::default());
    let options =
        json!({"default": "auto", "multiselect": false, "options": ["auto", "mp4"], "upload": true});
    assert_eq!(entry["input"]["required"]["kind"], json!(["COMBO", options]));
    assert_eq!((&entry["output_node"], &entry["experimental"]), (&json!(true), &json!(true)));
    assert!(entry.get("deprecated").is_none());
}

#[test]
fn inputs_become_arguments_and_results_slots() {
    let node = join::class();
    let output = call(
        &node,
        [("a", "x".into()), ("B", "y".into()), ("order", "last first".into()), ("times", 2.0.into())],
    );
    assert_eq!(literals(&output.unwrap()), ["y-xy-x".into(), json!(6)]);
    // The function itself is still there.
    assert_eq!(join("x", "y".into(), Order::Kept, 1, Some("+".into())).unwrap(), ("x+y".into(), 3));
}

#[test]
fn wrong_inputs_are_named() {
    let node = join::class();
    let text = |values| call(&node, values).unwrap_err().to_string();
    let good = ("a", json!("x"));
    assert_eq!(text([("a", json!(5)), ("B", json!("y"))]), "input `a`: expected STRING, got 5");
    assert_eq!(text([good.clone(), ("C", json!("y"))]), "input `B` is missing");
    let order =
        call(&node, [good.clone(), ("B", json!("y")), ("order", json!("sideways"))]).unwrap_err().to_string();
    assert_eq!(order, "input `order`: expected one of first first, last first, got \"sideways\"");
    let rest = [good, ("B", json!("y")), ("order", json!("first first")), ("times", json!(-1))];
    let error = call(&node, rest).unwrap_err();
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("ValueError", "times is negative"));
}

#[test]
fn list_classes_get_whole_lists() {
    let lists = |values: [(&str, Json); 2]| -> ListInputs {
        let list = |value: Json| value.as_array().unwrap().iter().cloned().map(Value::Json).collect();
        values.into_iter().map(|(name, value)| (name.to_owned(), list(value))).collect()
    };
    let node = sum::class();
    let output = with_context(|ctx| {
        node.call_list(ctx, lists([("numbers", json!([1, 2.5])), ("factor", json!([2, 9]))]))
    });
    assert_eq!(literals(&output.unwrap()), [json!([2.0, 5.0])]);
    assert!(with_context(|ctx| node.call(ctx, Inputs::new())).is_err());
}

#[test]
fn a_class_may_judge_and_fingerprint_and_ask() {
    let node = show::class();
    let output = call(&node, [("kind", "mp4".into()), ("source", Json::Null)]).unwrap();
    assert_eq!(literals(&output), [Json::Null, false.into()]);
    assert_eq!(output.ui.unwrap()["text"], json!(["1 mp4 None"]));
    assert_eq!(node.validated_inputs(), ["kind"]);
    assert_eq!(node.validate(&Extensions::default(), &Inputs::new()), Err("no kind".to_owned()));
    let fingerprint = node.fingerprint(&Extensions::default(), &inputs([("kind", json!("x"))]));
    assert_eq!(fingerprint.unwrap().unwrap(), json!(1));
    let asked = with_context(|ctx| node.check_lazy(ctx, &Inputs::new()).unwrap().unwrap());
    assert_eq!(asked, ["source"]);
}
