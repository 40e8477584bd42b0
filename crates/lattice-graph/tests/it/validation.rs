//! Which prompts are accepted, and what the others are told.

use lattice_graph::{CacheStrategy, Extensions, INPUT_TYPES, Prompt, Registry, Value, validate};
use serde_json::{Value as Json, json};

use crate::nodes::{Bench, TestNode, link, node, prompt, registry};

fn bench() -> Bench {
    bench_with([])
}

fn bench_with(more: impl IntoIterator<Item = TestNode>) -> Bench {
    let mut registry: Registry = registry();
    for node in more {
        registry.insert(node);
    }
    Bench::new(registry, CacheStrategy::Classic)
}

fn refusal(bench: &Bench, prompt: Json) -> Json {
    bench.validate(prompt).expect_err("refused").to_json()
}

/// The only error of the only node with errors.
fn only_error(reply: &Json) -> (&String, &Json) {
    let (id, entry) = reply["node_errors"].as_object().expect("object").iter().next().expect("a node");
    assert_eq!(entry["errors"].as_array().map(Vec::len), Some(1), "{reply}");
    (id, &entry["errors"][0])
}

#[test]
fn no_nodes_and_no_outputs() {
    for empty in [json!({}), json!([]), prompt(&[("1", "Int", &[("value", json!(1))])])] {
        let reply = refusal(&bench(), empty);
        assert_eq!(
            reply,
            json!({"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}},
                   "node_errors": {}})
        );
    }
    assert_eq!(refusal(&bench(), json!("text"))["error"]["type"], "invalid_prompt");
}

#[test]
fn classes_are_looked_at_in_order_before_anything_else() {
    let reply = refusal(&bench(), json!({"7": {"inputs": {}}, "8": {"class_type": "Nope"}}));
    assert_eq!(
        reply["error"],
        json!({"type": "invalid_prompt", "message": "Cannot execute because a node is missing the class_type property.",
               "details": "Node ID '#7'", "extra_info": {}})
    );
    let reply = refusal(&bench(), json!({"8": {"class_type": "Nope"}, "7": 5}));
    assert_eq!(reply["error"]["message"], "Cannot execute because node Nope does not exist.");
    assert_eq!(reply["error"]["details"], "Node ID '#8'");
}

#[test]
fn range_errors_of_an_inner_node() {
    let wrong = prompt(&[("1", "Int", &[("value", json!(-2000))]), ("2", "Show", &[("value", link("1"))])]);
    let reply = refusal(&bench(), wrong);
    assert_eq!(
        reply,
        json!({"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
                         "details": "", "extra_info": {}},
               "node_errors": {"1": {"errors": [{
                    "type": "value_smaller_than_min", "message": "Value -2000 smaller than min of -1000", "details": "value",
                    "extra_info": {"input_name": "value", "input_config": ["INT", {"min": -1000, "max": 100_000, "default": 0}],
                                   "received_value": -2000}}],
                 "dependent_outputs": ["2"], "class_type": "Int"}}})
    );
}

#[test]
fn literals_are_converted_in_place() {
    let bench = bench_with([node(
        "All",
        &["i: INT", "f: FLOAT", "s: STRING", "b: BOOLEAN", "x: ANY"],
        &[],
        |_, _| Ok(lattice_graph::NodeOutput::default()),
    )
    .output_node()]);
    for (given, expected) in [
        (
            json!({"i": "16", "f": "0.5", "s": 123, "b": "false", "x": [1, 2]}),
            json!([16, 0.5, "123", true, [1, 2]]),
        ),
        (
            json!({"i": 8.9, "f": 3, "s": null, "b": 0, "x": {"a": 1}}),
            json!([8, 3.0, "None", false, {"a": 1}]),
        ),
        (json!({"i": true, "f": true, "s": 1.0, "b": "", "x": null}), json!([1, 1.0, "1.0", false, null])),
    ] {
        let mut inputs = given.clone();
        if inputs["x"].is_array() {
            inputs["x"] = json!({"__value__": given["x"]});
        }
        let accepted = bench.validate(json!({"1": {"class_type": "All", "inputs": inputs}})).expect("valid");
        let got = &accepted.prompt["1"]["inputs"];
        assert_eq!(json!([got["i"], got["f"], got["s"], got["b"], got["x"]]), expected);
    }
}

#[test]
fn conversions_that_fail() {
    for (value, reason) in [
        (json!("abc"), "invalid literal for int() with base 10: 'abc'"),
        (
            json!(null),
            "int() argument must be a string, a bytes-like object or a real number, not 'NoneType'",
        ),
    ] {
        let wrong =
            prompt(&[("1", "Int", &[("value", value.clone())]), ("2", "Show", &[("value", link("1"))])]);
        let reply = refusal(&bench(), wrong);
        let (id, error) = only_error(&reply);
        assert_eq!((id.as_str(), &error["type"]), ("1", &json!("invalid_input_type")));
        assert_eq!(error["message"], "Failed to convert an input value to a INT value");
        assert_eq!(error["extra_info"]["exception_message"], reason);
        assert_eq!(error["extra_info"]["received_value"], value);
    }
}

#[test]
fn links_that_lead_nowhere() {
    // On the output node itself.
    for (bad, kind, text) in [
        (json!(["9", 0]), "KeyError", "'9'"),
        (json!([9, 0]), "KeyError", "9"),
        (json!(["1", 5]), "IndexError", "tuple index out of range"),
        (json!(["1", -1]), "IndexError", "tuple index out of range"),
    ] {
        let wrong = prompt(&[("1", "Int", &[("value", json!(1))]), ("2", "Show", &[("value", bad)])]);
        let reply = refusal(&bench(), wrong);
        assert_eq!(reply["error"]["details"], format!("Exception when validating node: {text}"));
        let (id, error) = only_error(&reply);
        assert_eq!((id.as_str(), &error["type"]), ("2", &json!("exception_during_validation")));
        assert_eq!(error["extra_info"], json!({"exception_type": kind, "traceback": []}));
    }
    // One level up.
    let wrong = prompt(&[("1", "Inc", &[("a", json!(["9", 0]))]), ("2", "Show", &[("value", link("1"))])]);
    let reply = refusal(&bench(), wrong);
    let (id, error) = only_error(&reply);
    assert_eq!((id.as_str(), &error["type"]), ("1", &json!("exception_during_inner_validation")));
    assert_eq!(error["message"], "Exception when validating inner node");
    assert_eq!(error["details"], "'9'");
    assert_eq!(
        error["extra_info"],
        json!({"input_name": "value", "input_config": ["*", {}], "exception_message": "'9'", "exception_type": "KeyError",
               "traceback": [], "linked_node": ["1", 0]})
    );
    // A fractional slot, a list that is no link, no inputs at all.
    let wrong =
        prompt(&[("1", "Int", &[("value", json!(1))]), ("2", "Show", &[("value", json!(["1", 0.0]))])]);
    assert_eq!(only_error(&refusal(&bench(), wrong)).1["extra_info"]["exception_type"], "TypeError");
    let wrong = prompt(&[("2", "Show", &[("value", json!([1, 2, 3]))])]);
    let reply = refusal(&bench(), wrong);
    assert_eq!(only_error(&reply).1["type"], "bad_linked_input");
    assert_eq!(only_error(&reply).1["extra_info"]["received_value"], json!([1, 2, 3]));
    let reply = refusal(&bench(), json!({"2": {"class_type": "Show"}}));
    assert_eq!(only_error(&reply).1["details"], "'inputs'");
}

#[test]
fn types_must_fit() {
    let source =
        || node("Text", &[], &["STRING", "INT,FLOAT"], |_, _| Ok(lattice_graph::NodeOutput::default()));
    let bench = bench_with([source()]);
    let with_slot = |slot: usize| {
        prompt(&[
            ("1", "Text", &[]),
            ("2", "Inc", &[("a", json!(["1", slot]))]),
            ("3", "Show", &[("value", link("2"))]),
        ])
    };
    assert!(bench.validate(with_slot(1)).is_ok());
    let reply = refusal(&bench, with_slot(0));
    let (id, error) = only_error(&reply);
    assert_eq!((id.as_str(), &error["type"]), ("2", &json!("return_type_mismatch")));
    assert_eq!(error["details"], "a, received_type(STRING) mismatch input_type(INT)");
    assert_eq!(
        error["extra_info"],
        json!({"input_name": "a", "input_config": ["INT", {}], "received_type": "STRING", "linked_node": ["1", 0]})
    );
}

#[test]
fn choices_are_tested_and_long_lists_not_shown() {
    let many: Vec<String> = (0..21).map(|i| format!("c{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let chooser = |name: &str, choices: &[&str]| {
        node(name, &["c: COMBO"], &[], |_, _| Ok(lattice_graph::NodeOutput::default()))
            .choices("c", choices)
            .output_node()
    };
    let bench = bench_with([chooser("Few", &["a", "b"]), chooser("Many", &many)]);
    let reply = refusal(&bench, prompt(&[("1", "Few", &[("c", json!("z"))])]));
    assert_eq!(only_error(&reply).1["details"], "c: 'z' not in ['a', 'b']");
    assert_eq!(only_error(&reply).1["extra_info"]["input_config"], json!([["a", "b"], {}]));
    let reply = refusal(&bench, prompt(&[("1", "Many", &[("c", json!("z"))])]));
    assert_eq!(only_error(&reply).1["details"], "c: 'z' not in (list of length 21)");
    assert_eq!(only_error(&reply).1["extra_info"]["input_config"], Json::Null);
    assert!(bench.validate(prompt(&[("1", "Many", &[("c", json!("c20"))])])).is_ok());
}

#[test]
fn a_class_may_judge_its_inputs_itself() {
    let mut own =
        node("Own", &["file: COMBO", "n: INT"], &[], |_, _| Ok(lattice_graph::NodeOutput::default()))
            .choices("file", &["listed"])
            .output_node();
    own.validator = Some((
        vec!["file"],
        Box::new(|inputs| match inputs["file"].as_json() {
            Some(Json::String(s)) if s == "there" => Ok(()),
            Some(other) => Err(format!("Invalid image file: {}", other.as_str().unwrap_or_default())),
            None => Err(String::new()),
        }),
    ));
    let bench = bench_with([own]);
    assert!(bench.validate(prompt(&[("1", "Own", &[("file", json!("there")), ("n", json!(1))])])).is_ok());
    let reply = refusal(&bench, prompt(&[("1", "Own", &[("file", json!("gone.png")), ("n", json!(1))])]));
    let (_, error) = only_error(&reply);
    assert_eq!(error["type"], "custom_validation_failed");
    assert_eq!(error["details"], "file - Invalid image file: gone.png");
    assert_eq!(error["extra_info"], json!({"input_name": "file"}));
}

#[test]
fn a_validator_may_take_over_the_types() {
    let mut own =
        node("Own", &["a: IMAGE"], &[], |_, _| Ok(lattice_graph::NodeOutput::default())).output_node();
    own.validator = Some((
        vec![INPUT_TYPES],
        Box::new(|inputs| match &inputs[INPUT_TYPES] {
            Value::Json(types) if types["a"] == "INT" => Ok(()),
            _ => Err("no".into()),
        }),
    ));
    let bench = bench_with([own]);
    let linked = |class| prompt(&[("1", class, &[("value", json!(1))]), ("2", "Own", &[("a", link("1"))])]);
    assert!(bench.validate(linked("Int")).is_ok());
}

#[test]
fn cycles_are_refused_without_an_error_of_their_own() {
    let circle = prompt(&[
        ("1", "Inc", &[("a", link("2"))]),
        ("2", "Inc", &[("a", link("1"))]),
        ("3", "Show", &[("value", link("2"))]),
    ]);
    let reply = refusal(&bench(), circle);
    assert_eq!(reply["error"]["type"], "prompt_outputs_failed_validation");
    assert_eq!(reply["error"]["details"], "");
    assert_eq!(reply["node_errors"], json!({}));
}

#[test]
fn valid_outputs_run_without_the_others() {
    let mixed = prompt(&[
        ("1", "Int", &[("value", json!(1))]),
        ("2", "Show", &[("value", link("1"))]),
        ("3", "Int", &[("value", json!(-5000))]),
        ("4", "Show", &[("value", link("3"))]),
        ("5", "Show", &[]),
        // Reached by no output node: nobody looks at it.
        ("6", "Int", &[("value", json!("junk"))]),
    ]);
    let accepted = bench().validate(mixed.clone()).expect("accepted");
    assert_eq!(accepted.outputs, ["2"]);
    let dependents: Vec<_> =
        accepted.node_errors.iter().map(|(id, e)| (id.as_str(), e.dependent_outputs.join(","))).collect();
    assert_eq!(dependents, [("3", "4".to_owned()), ("5", "5".to_owned())]);
    let only = |targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(|&t| t.to_owned()).collect();
        let bench = bench();
        validate(Prompt::parse(mixed.clone())?, &bench.registry, &Extensions::default(), Some(&targets))
    };
    assert_eq!(only(&["2", "1", "nowhere"]).expect("accepted").outputs, ["2"]);
    assert_eq!(only(&["5"]).expect_err("refused").error.details, "Required input is missing: value");
    assert_eq!(only(&["1"]).expect_err("refused").error.kind, "prompt_no_outputs");
}
