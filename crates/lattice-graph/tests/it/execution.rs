//! Order, lists, lazy inputs, blockers, errors, interrupts, async nodes, events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use lattice_graph::{
    CacheStrategy, Event, NodeError, NodeOutput, PreviewImage, Registry, RunStatus, Slot, Value,
};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use crate::nodes::{Bench, TestNode, int, link, node, prompt, registry, texts, ui_text};

fn bench() -> Bench {
    Bench::new(registry(), CacheStrategy::Classic)
}

fn bench_with(more: impl IntoIterator<Item = TestNode>) -> Bench {
    let mut registry: Registry = registry();
    for node in more {
        registry.insert(node);
    }
    Bench::new(registry, CacheStrategy::Classic)
}

fn pair() -> Json {
    prompt(&[("1", "Int", &[("value", json!(5))]), ("4", "Show", &[("value", link("1"))])])
}

#[test]
fn events_of_a_first_and_a_second_run() {
    let mut bench = bench();
    let result = bench.run(pair());
    assert_eq!(
        bench.trace(),
        [
            "start",
            "cached ",
            "running 1 0/1",
            "executing 1",
            "finished 1 1/1",
            "running 4 0/1",
            "executing 4",
            r#"executed 4 {"text":["5"]}"#,
            "finished 4 1/1",
            "success"
        ]
    );
    assert_eq!(result.status, RunStatus::Success);
    let meta = json!(result.outputs["4"].meta);
    assert_eq!(meta, json!({"node_id": "4", "display_node": "4", "parent_node": null, "real_node_id": "4"}));

    let again = bench.run(pair());
    assert_eq!(
        bench.trace(),
        ["start", "cached 1,4", r#"executed 4 {"text":["5"]}"#, "finished 4 1/1", "success"]
    );
    assert_eq!(again.outputs, result.outputs);
}

#[test]
fn the_last_input_of_a_node_runs_first_on_ties() {
    let mut bench = bench();
    bench.run(prompt(&[
        ("a", "Int", &[("value", json!(1))]),
        ("b", "Int", &[("value", json!(2))]),
        ("c", "Add", &[("a", link("b")), ("b", link("a"))]),
        ("d", "Show", &[("value", link("c"))]),
    ]));
    assert_eq!(bench.started(), ["a", "b", "c", "d"]);
}

#[test]
fn what_leads_to_an_output_soonest_goes_first() {
    let mut bench = bench();
    let nodes = prompt(&[
        ("3", "Show", &[("value", link("2"))]),
        ("2", "Inc", &[("a", link("1"))]),
        ("1", "Int", &[("value", json!(1))]),
        ("7", "Show", &[("value", link("4"))]),
        ("4", "Add", &[("a", link("5")), ("b", link("6"))]),
        ("5", "Int", &[("value", json!(5))]),
        ("6", "Int", &[("value", json!(6))]),
    ]);
    let mut accepted = bench.validate(nodes).expect("valid");
    accepted.outputs = vec!["7".into(), "3".into()];
    bench.run_accepted(&accepted);
    assert_eq!(bench.started(), ["6", "5", "4", "7", "1", "2", "3"]);
}

#[test]
fn equal_nodes_run_once() {
    let mut bench = bench();
    let result = bench.run(prompt(&[
        ("1", "Int", &[("value", json!(1))]),
        ("2", "Int", &[("value", json!(1))]),
        ("3", "Add", &[("a", link("1")), ("b", link("2"))]),
        ("4", "Show", &[("value", link("3"))]),
    ]));
    assert_eq!(bench.started(), ["2", "3", "4"]);
    assert_eq!(bench.trace()[5..7], ["executed 1 null", "finished 1 1/1"]);
    assert_eq!(texts(&result, "4"), json!(["2"]));
}

#[test]
fn shorter_lists_repeat_their_last_element() {
    let mut bench = bench_with([node("Scale", &["a: INT", "b: INT"], &["INT"], |_, inputs| {
        Ok(NodeOutput::values([(int(&inputs, "a") * 100 + int(&inputs, "b")).into()]))
    })]);
    let result = bench.run(prompt(&[
        ("1", "Range", &[("count", json!(3))]),
        ("2", "Range", &[("count", json!(2))]),
        ("3", "Scale", &[("a", link("1")), ("b", link("2"))]),
        ("4", "Show", &[("value", link("3"))]),
        ("5", "Lists", &[("a", link("3")), ("b", json!(7))]),
        ("6", "Show", &[("value", link("5"))]),
    ]));
    assert_eq!(texts(&result, "4"), json!(["0", "101", "201"]));
    assert_eq!(texts(&result, "6"), json!(["[0,101,201] [7]"]));
}

#[test]
fn empty_lists() {
    let empty = |class: &str, inputs: &[(&str, Json)]| {
        prompt(&[
            ("1", "Range", &[("count", json!(0))]),
            ("2", class, inputs),
            ("3", "Show", &[("value", link("2"))]),
        ])
    };
    let mut bench = bench_with([node("Args", &["a?: INT", "b?: INT"], &["INT"], |_, inputs| {
        Ok(NodeOutput::values([(inputs.len() as u64).into()]))
    })]);
    let result = bench.run(empty("Args", &[("a", link("1")), ("b", json!(1))]));
    let RunStatus::Error(failure) = result.status else { panic!("{:?}", result.status) };
    assert_eq!(
        (&*failure.exception_type, &*failure.exception_message),
        ("IndexError", "list index out of range\n")
    );
    // Alone, it leaves the call without arguments.
    assert_eq!(texts(&bench.run(empty("Args", &[("a", link("1"))])), "3"), json!(["0"]));
}

#[test]
fn lazy_inputs_run_when_asked_for() {
    let mut bench = bench();
    let switch = |mask: i64| {
        prompt(&[
            ("1", "Int", &[("value", json!(11))]),
            ("2", "Int", &[("value", json!(12))]),
            ("m", "Int", &[("value", json!(mask))]),
            ("x", "Switch", &[("image1", link("1")), ("image2", link("2")), ("mask", link("m"))]),
            ("o", "Show", &[("value", link("x"))]),
        ])
    };
    let result = bench.run(switch(0));
    assert_eq!(bench.started(), ["m", "x", "1", "x", "o"]);
    assert_eq!(texts(&result, "o"), json!(["11"]));
    let result = bench.run(switch(5));
    let RunStatus::Error(failure) = result.status else { panic!("{:?}", result.status) };
    assert!(failure.exception_message.contains("nothing"), "{failure:?}");
    let result = bench.run(switch(1));
    assert_eq!(bench.started(), ["m", "x", "2", "x", "o"]);
    assert_eq!(texts(&result, "o"), json!(["12"]));
}

#[test]
fn blockers_stop_their_consumers_and_are_reported_once() {
    let mut bench = bench();
    let blocked = |message: &str| {
        prompt(&[
            ("1", "Int", &[("value", json!(1))]),
            ("2", "Block", &[("value", link("1")), ("message", json!(message)), ("which", json!(-1))]),
            ("3", "Inc", &[("a", link("2"))]),
            ("4", "Show", &[("value", link("3"))]),
            ("5", "Show", &[("value", link("1"))]),
        ])
    };
    let result = bench.run(blocked("not today"));
    assert_eq!(result.status, RunStatus::Success);
    assert!(!result.outputs.contains_key("4") && result.outputs.contains_key("5"));
    let blocks: Vec<_> = bench.trace().into_iter().filter(|line| line.starts_with("blocked")).collect();
    assert_eq!(blocks, ["blocked 3 Execution Blocked: not today"]);
    let event = bench.events.iter().find(|e| matches!(e, Event::ExecutionBlocked(_))).expect("sent");
    let (kind, data) = event.message("P", 1).expect("a message");
    assert_eq!(kind, "execution_error");
    assert_eq!((&data["exception_type"], data.get("timestamp")), (&json!("ExecutionBlocked"), None));
    assert!(!event.in_history());

    bench.run(blocked("not today"));
    assert_eq!(bench.cached(), ["1", "2", "3", "4", "5"]);
    assert!(!bench.trace().iter().any(|line| line.starts_with("blocked")));
    bench.run(blocked(""));
    assert!(!bench.trace().iter().any(|line| line.starts_with("blocked")));
}

#[test]
fn only_the_blocked_elements_of_a_list_are_left_out() {
    let mut bench = bench();
    let result = bench.run(prompt(&[
        ("1", "Range", &[("count", json!(3))]),
        ("2", "Block", &[("value", link("1")), ("message", json!("one")), ("which", json!(1))]),
        ("3", "Show", &[("value", link("2"))]),
        ("4", "Lists", &[("a", link("2")), ("b", json!(0))]),
        ("5", "Show", &[("value", link("4"))]),
    ]));
    assert_eq!(result.status, RunStatus::Success);
    assert_eq!(texts(&result, "3"), json!(["0", "2"]));
    // A node that takes lists is blocked by any element.
    assert!(!result.outputs.contains_key("5"));
}

#[test]
fn the_first_error_ends_the_prompt() {
    let mut bench = bench();
    let failing = prompt(&[
        ("1", "Int", &[("value", json!(1))]),
        ("2", "Fail", &[("a", link("1"))]),
        ("3", "Show", &[("value", link("2"))]),
    ]);
    let result = bench.run(failing);
    let RunStatus::Error(failure) = &result.status else { panic!("{:?}", result.status) };
    assert_eq!(
        json!(failure),
        json!({"node_id": "2", "node_type": "Fail", "executed": ["1"], "exception_message": "no luck\n",
               "exception_type": "ValueError", "traceback": ["cause"], "current_inputs": {"a": [1]},
               "current_outputs": ["1", "2", "3"]})
    );
    assert_eq!(result.status.as_str(), "error");
    assert_eq!(bench.trace().last().map(String::as_str), Some("error 2 ValueError"));
    // What was done stays.
    bench.run(pair_of("1", json!(1)));
    assert_eq!(bench.cached(), ["1"]);
}

fn pair_of(id: &str, value: Json) -> Json {
    prompt(&[(id, "Int", &[("value", value)]), ("4", "Show", &[("value", link(id))])])
}

#[test]
fn a_panic_is_an_error_of_the_node() {
    let mut bench = bench();
    let result = bench.run(prompt(&[("2", "Panic", &[]), ("3", "Show", &[("value", link("2"))])]));
    let RunStatus::Error(failure) = result.status else { panic!("{:?}", result.status) };
    assert!(failure.exception_message.contains("boom"));
    assert_eq!(bench.run(pair()).status, RunStatus::Success);
}

#[test]
fn progress_and_interrupts() {
    let flag = lattice_graph::InterruptFlag::default();
    let remote = flag.clone();
    let steps = node("Steps", &["steps: INT", "stop: INT"], &["INT"], move |ctx, inputs| {
        let steps = int(&inputs, "steps");
        for step in 1..=steps {
            let preview = (step == 1).then(|| PreviewImage { mime: "image/png", data: Arc::from([1u8]) });
            ctx.progress(step as f64, steps as f64, preview)?;
            if step == int(&inputs, "stop") {
                remote.interrupt();
            }
        }
        ctx.show_text("done");
        Ok(NodeOutput::values([steps.into()]))
    });
    let mut bench = bench_with([steps]);
    bench.interrupt = flag;
    let run = |stop: i64| {
        prompt(&[
            ("1", "Int", &[("value", json!(4))]),
            ("2", "Steps", &[("steps", link("1")), ("stop", json!(stop))]),
            ("3", "Show", &[("value", link("2"))]),
        ])
    };
    let result = bench.run(run(2));
    assert_eq!((&result.status, result.status.as_str()), (&RunStatus::Interrupted, "error"));
    assert_eq!(
        bench.trace()[5..],
        [
            "running 2 0/1",
            "executing 2",
            "running 2 1/4",
            "progress 2 1/4",
            "running 2 2/4",
            "progress 2 2/4",
            "interrupted 2 after 1"
        ]
    );
    let previews = bench.events.iter().filter(|e| matches!(e, Event::Progress { preview: Some(_), .. }));
    assert_eq!(previews.count(), 1);
    // The next prompt starts with the flag cleared.
    assert_eq!(bench.run(run(0)).status, RunStatus::Success);
    assert!(bench.trace().contains(&"text 2 done".to_owned()));
    assert!(bench.trace().contains(&"finished 2 4/4".to_owned()));
}

#[test]
fn hidden_inputs_and_what_is_not_declared() {
    let mut spy = node("Spy", &["a?: *"], &[], |ctx, inputs| {
        Ok(NodeOutput::ui(ui_text(vec![
            ctx.node_id.into(),
            ctx.extra_pnginfo().cloned().unwrap_or_default(),
            ctx.prompt["7"]["class_type"].clone(),
            json!(ctx.dynamic_prompt.is_some()),
            json!(inputs.keys().collect::<Vec<_>>()),
        ])))
    })
    .output_node();
    spy.spec.hidden = vec![("p".into(), "PROMPT".into()), ("d".into(), "DYNPROMPT".into())];
    let mut bench = bench_with([spy]);
    let result = bench.run(prompt(&[("7", "Spy", &[("a", json!(1)), ("other", json!(2))])]));
    assert_eq!(texts(&result, "7"), json!(["7", {"workflow": 1}, "Spy", true, ["a"]]));
}

#[test]
fn raw_links_arrive_as_links_after_their_source() {
    let raw = node("Raw", &["a: *"], &["STRING"], |_, inputs| Ok(NodeOutput::values([inputs["a"].clone()])))
        .options("a", json!({"rawLink": true}));
    let mut bench = bench_with([raw]);
    let result = bench.run(prompt(&[
        ("1", "Int", &[("value", json!(1))]),
        ("2", "Raw", &[("a", link("1"))]),
        ("3", "Show", &[("value", link("2"))]),
    ]));
    assert_eq!(bench.started(), ["1", "2", "3"]);
    assert_eq!(texts(&result, "3"), json!([r#"["1",0]"#]));
}

#[test]
fn a_slot_beyond_the_results_is_null() {
    let short = node("Short", &[], &["INT", "INT"], |_, _| Ok(NodeOutput::values([1.into()])));
    let list = node("NotAList", &[], &["INT"], |_, _| {
        Ok(NodeOutput { slots: vec![Slot::Many(vec![Value::NULL])], ..NodeOutput::default() })
    });
    let mut bench = bench_with([short, list]);
    let result = bench.run(prompt(&[("1", "Short", &[]), ("2", "Show", &[("value", json!(["1", 1]))])]));
    assert_eq!(texts(&result, "2"), json!(["null"]));
    let result = bench.run(prompt(&[("1", "NotAList", &[]), ("2", "Show", &[("value", link("1"))])]));
    assert!(matches!(result.status, RunStatus::Error(_)));
}

#[test]
fn async_nodes_run_beside_the_others() {
    // The async node waits for a plain one that runs after it was started.
    let (sender, receiver) = mpsc::channel::<()>();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    let mut waiter = node("Wait", &["a: INT"], &["INT"], move |_, inputs| {
        let told = receiver.lock().recv_timeout(std::time::Duration::from_mins(1));
        told.map_err(|_| NodeError::new("TimeoutError", "nobody came"))?;
        Ok(NodeOutput::values([inputs["a"].clone()]))
    });
    waiter.spec.is_async = true;
    let tell = node("Tell", &["a: INT"], &["INT"], move |_, inputs| {
        sender.lock().send(()).map_err(|_| NodeError::new("RuntimeError", "gone"))?;
        Ok(NodeOutput::values([inputs["a"].clone()]))
    });
    let mut bench = bench_with([waiter, tell]);
    let result = bench.run(prompt(&[
        ("1", "Tell", &[("a", json!(1))]),
        ("2", "Wait", &[("a", json!(2))]),
        ("3", "Add", &[("a", link("1")), ("b", link("2"))]),
        ("4", "Show", &[("value", link("3"))]),
    ]));
    assert_eq!(texts(&result, "4"), json!(["3"]));
    assert_eq!(bench.started(), ["2", "1", "3", "4"]);
    // Collected without a second start.
    assert_eq!(bench.trace().iter().filter(|line| line.as_str() == "executing 2").count(), 1);
}

#[test]
fn an_error_stops_async_nodes_too() {
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = stopped.clone();
    let (sender, receiver) = mpsc::channel::<()>();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    let fail = node("FailLater", &[], &["INT"], move |_, _| {
        let _ = receiver.lock().recv_timeout(std::time::Duration::from_mins(1));
        Err(NodeError::new("ValueError", "no luck"))
    });
    let mut waiter = node("Wait", &[], &["INT"], move |ctx, _| {
        let _ = sender.lock().send(());
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while std::time::Instant::now() < deadline {
            if let Err(error) = ctx.check_interrupt() {
                seen.store(true, Ordering::Relaxed);
                return Err(error);
            }
            std::thread::yield_now();
        }
        Ok(NodeOutput::values([0.into()]))
    });
    waiter.spec.is_async = true;
    let mut bench = bench_with([waiter, fail]);
    let result = bench.run(prompt(&[
        ("1", "FailLater", &[]),
        ("2", "Wait", &[]),
        ("3", "Add", &[("a", link("1")), ("b", link("2"))]),
        ("4", "Show", &[("value", link("3"))]),
    ]));
    let RunStatus::Error(failure) = result.status else { panic!("{:?}", result.status) };
    assert_eq!(failure.node_id, "1");
    assert!(stopped.load(Ordering::Relaxed));
}

#[test]
fn progress_snapshots_keep_what_they_saw() {
    let mut bench = bench();
    bench.run(pair());
    let snapshots: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ProgressState(snapshot) => Some(snapshot.nodes()),
            _ => None,
        })
        .collect();
    let states = |index: usize| -> Vec<(&str, &str)> {
        snapshots[index].iter().map(|(id, entry)| (id.as_str(), entry.state)).collect()
    };
    assert_eq!(states(0), [("1", "running")]);
    assert_eq!(states(1), [("1", "finished")]);
    assert_eq!(states(2), [("1", "finished"), ("4", "running")]);
    assert_eq!(states(3), [("1", "finished"), ("4", "finished")]);
}
