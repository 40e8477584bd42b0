//! Nodes that put a graph in their place.

use indexmap::IndexMap;
use lattice_graph::{
    CacheStrategy, ExpandInput, ExpandLink, ExpandNode, Expansion, NodeOutput, Registry, RunStatus, Slot,
    Value,
};
use serde_json::json;

use crate::nodes::{Bench, TestNode, int, link, node, prompt, registry, texts};

fn value(v: impl Into<Value>) -> ExpandInput {
    ExpandInput::Value(v.into())
}

fn local(id: &str) -> ExpandInput {
    ExpandInput::Link(ExpandLink::Local(id.into(), 0))
}

fn inner(class: &str, inputs: impl IntoIterator<Item = (&'static str, ExpandInput)>) -> ExpandNode {
    ExpandNode {
        class_type: class.into(),
        inputs: inputs.into_iter().map(|(name, input)| (name.to_owned(), input)).collect(),
        override_display_id: None,
    }
}

fn expanded(nodes: impl IntoIterator<Item = (&'static str, ExpandNode)>, result: ExpandLink) -> NodeOutput {
    let nodes: IndexMap<_, _> = nodes.into_iter().map(|(id, node)| (id.to_owned(), node)).collect();
    NodeOutput { slots: vec![Slot::Link(result)], expand: Some(Expansion { nodes }), ..NodeOutput::default() }
}

/// Int(a) → Inc, with a Show beside it.
fn twice() -> TestNode {
    node("Twice", &["a: INT"], &["INT"], |_, inputs| {
        let a = int(&inputs, "a");
        if a < 0 {
            // Not every call expands.
            return Ok(NodeOutput::values([a.into()]));
        }
        let mut show = inner("Show", [("value", local("2"))]);
        show.override_display_id = Some("elsewhere".into());
        Ok(expanded(
            [
                ("1", inner("Int", [("value", value(a))])),
                ("2", inner("Inc", [("a", local("1"))])),
                ("3", show),
            ],
            ExpandLink::Local("2".into(), 0),
        ))
    })
}

fn bench_with(more: impl IntoIterator<Item = TestNode>) -> Bench {
    let mut registry: Registry = registry();
    for node in more {
        registry.insert(node);
    }
    Bench::new(registry, CacheStrategy::Classic)
}

#[test]
fn ids_events_and_ui_outputs() {
    let mut bench = bench_with([twice()]);
    let nodes = prompt(&[("1", "Twice", &[("a", json!(5))]), ("9", "Show", &[("value", link("1"))])]);
    let result = bench.run(nodes.clone());
    assert_eq!(bench.started(), ["1", "1.0.0.1", "1.0.0.2", "1.0.0.3", "9"]);
    assert_eq!(texts(&result, "9"), json!(["6"]));
    assert_eq!(texts(&result, "1.0.0.3"), json!(["6"]));
    assert_eq!(
        json!(result.outputs["1.0.0.3"].meta),
        json!({"node_id": "1.0.0.3", "display_node": "elsewhere", "parent_node": "1", "real_node_id": "1"})
    );
    let trace = bench.trace();
    assert!(trace.contains(&"executing 1.0.0.1 shown at 1".to_owned()), "{trace:?}");
    // The expanding node is collected without a second start.
    let of_parent: Vec<_> = trace.iter().filter(|line| line.split(' ').nth(1) == Some("1")).collect();
    assert_eq!(of_parent, ["running 1 0/1", "executing 1", "finished 1 1/1"]);
    // Stored results do not bring the inner outputs back.
    let result = bench.run(nodes);
    assert_eq!(bench.cached(), ["1", "9"]);
    assert_eq!(result.outputs.keys().collect::<Vec<_>>(), ["9"]);
}

#[test]
fn calls_over_a_list_expand_each_on_its_own() {
    let mut bench = bench_with([twice()]);
    let shift = prompt(&[
        ("0", "Range", &[("count", json!(3))]),
        ("m", "Add", &[("a", link("0")), ("b", json!(-1))]),
        ("1", "Twice", &[("a", link("m"))]),
        ("9", "Show", &[("value", link("1"))]),
    ]);
    let result = bench.run(shift);
    assert_eq!(texts(&result, "9"), json!(["-1", "1", "2"]));
    let inner: Vec<_> = bench.started().into_iter().filter(|id| id.contains('.')).collect();
    for id in ["1.1.0.1", "1.1.0.2", "1.2.0.1", "1.2.0.2"] {
        assert!(inner.contains(&id.to_owned()), "{inner:?}");
    }
}

#[test]
fn expansions_nest_and_reach_outside() {
    let countdown = node("Countdown", &["n: INT", "x: INT"], &["INT"], |_, inputs| {
        let outer = inputs["x"].as_json().and_then(|l| Some(ExpandLink::Outer(l[0].as_str()?.into(), 0)));
        let outer = outer.expect("a raw link");
        match int(&inputs, "n") {
            0 => Ok(NodeOutput { slots: vec![Slot::Link(outer)], ..NodeOutput::default() }),
            n => Ok(expanded(
                [
                    ("1", inner("Inc", [("a", ExpandInput::Link(outer))])),
                    ("2", inner("Countdown", [("n", value(n - 1)), ("x", local("1"))])),
                ],
                ExpandLink::Local("2".into(), 0),
            )),
        }
    })
    .options("x", json!({"rawLink": true}));
    let mut bench = bench_with([countdown]);
    let nodes = |n: i64| {
        prompt(&[
            ("1", "Int", &[("value", json!(10))]),
            ("2", "Countdown", &[("n", json!(n)), ("x", link("1"))]),
            ("3", "Show", &[("value", link("2"))]),
        ])
    };
    let result = bench.run(nodes(3));
    assert_eq!(texts(&result, "3"), json!(["13"]));
    assert!(bench.started().contains(&"2.0.0.2.0.0.2.0.0.1".to_owned()), "{:?}", bench.started());
}

#[test]
fn failures_inside_name_the_original_node() {
    let bad = node("Bad", &["how: INT"], &["INT"], |_, inputs| {
        let (nodes, result) = match int(&inputs, "how") {
            0 => (vec![("1", inner("Fail", []))], "1"),
            1 => (vec![("1", inner("Nope", []))], "1"),
            2 => (vec![("1", inner("Int", [("value", value(1))]))], "absent"),
            _ => {
                let circle =
                    vec![("1", inner("Inc", [("a", local("2"))])), ("2", inner("Inc", [("a", local("1"))]))];
                (circle, "2")
            }
        };
        Ok(expanded(nodes, ExpandLink::Local(result.into(), 0)))
    });
    let mut bench = bench_with([bad]);
    for (how, kind) in
        [(0, "ValueError"), (1, "KeyError"), (2, "KeyError"), (3, "graph.DependencyCycleError")]
    {
        let nodes = prompt(&[("7", "Bad", &[("how", json!(how))]), ("8", "Show", &[("value", link("7"))])]);
        let result = bench.run(nodes);
        let RunStatus::Error(failure) = result.status else { panic!("{:?}", result.status) };
        assert_eq!((failure.node_id.as_str(), failure.exception_type.as_str()), ("7", kind));
        if how == 3 {
            assert_eq!(failure.exception_message, "Dependency cycle detected");
            assert_eq!(failure.current_inputs, json!([]));
        }
    }
}

#[test]
fn an_id_that_is_taken_is_an_error() {
    let mut bench = bench_with([twice()]);
    let result = bench.run(prompt(&[
        ("1", "Twice", &[("a", json!(5))]),
        ("1.0.0.1", "Int", &[("value", json!(1))]),
        ("9", "Add", &[("a", link("1")), ("b", link("1.0.0.1"))]),
        ("10", "Show", &[("value", link("9"))]),
    ]));
    assert!(matches!(result.status, RunStatus::Error(_)), "{:?}", result.status);
}

#[test]
fn opaque_values_reach_inner_nodes_and_are_never_taken_for_equal() {
    let wrap = node("Wrap", &["n: INT"], &["*"], |_, _| {
        let secret = Value::object("SECRET", 8, 42_u32);
        Ok(expanded([("1", inner("Unwrap", [("a", value_of(secret))]))], ExpandLink::Local("1".into(), 0)))
    });
    let unwrap = node("Unwrap", &["a: SECRET"], &["INT"], |_, inputs| {
        Ok(NodeOutput::values([inputs["a"].downcast::<u32>().map_or(0, |n| *n).into()]))
    });
    let mut bench = bench_with([wrap, unwrap]);
    let result = bench.run(prompt(&[
        ("1", "Wrap", &[("n", json!(1))]),
        ("2", "Wrap", &[("n", json!(2))]),
        ("3", "Add", &[("a", link("1")), ("b", link("2"))]),
        ("4", "Show", &[("value", link("3"))]),
    ]));
    assert_eq!(texts(&result, "4"), json!(["84"]));
    assert_eq!(bench.started().iter().filter(|id| id.contains('.')).count(), 2);
}

fn value_of(v: Value) -> ExpandInput {
    ExpandInput::Value(v)
}
