//! What is kept between prompts, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use lattice_graph::{CacheStrategy, NodeError, NodeOutput, Registry, Value};
use serde_json::{Value as Json, json};

use crate::nodes::{Bench, TestNode, int, link, node, prompt, registry, texts};

fn bench_with(strategy: CacheStrategy, more: impl IntoIterator<Item = TestNode>) -> Bench {
    let mut registry: Registry = registry();
    for node in more {
        registry.insert(node);
    }
    Bench::new(registry, strategy)
}

/// Int → Inc → Show with ids that begin with `prefix`.
fn chain(prefix: &str, value: Json) -> Json {
    let [a, b, c] = ["1", "2", "3"].map(|id| format!("{prefix}{id}"));
    prompt(&[
        (&a, "Int", &[("value", value)]),
        (&b, "Inc", &[("a", link(&a))]),
        (&c, "Show", &[("value", link(&b))]),
    ])
}

#[test]
fn classic_keeps_what_each_prompt_contains() {
    let mut bench = bench_with(CacheStrategy::Classic, []);
    for (value, cached) in [(1, 0), (1, 3), (2, 0), (1, 0)] {
        bench.run(chain("", json!(value)));
        assert_eq!(bench.cached().len(), cached, "value {value}");
    }
    bench.executor.clear();
    bench.run(chain("", json!(1)));
    assert!(bench.cached().is_empty());
}

#[test]
fn lru_keeps_the_latest_prompts() {
    let mut bench = bench_with(CacheStrategy::Lru(3), []);
    for (value, cached) in [(1, 0), (2, 0), (1, 3), (3, 0), (4, 0), (1, 0)] {
        bench.run(chain("", json!(value)));
        assert_eq!(bench.cached().len(), cached, "value {value}");
    }
}

#[test]
fn none_keeps_nothing_and_lets_go_early() {
    let alive = Arc::new(AtomicI64::new(0));
    struct Counted(Arc<AtomicI64>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let counter = alive.clone();
    let make = node("Make", &["a?: *", "n: INT"], &["BIG"], move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(NodeOutput::values([Value::object("BIG", 1000, Counted(counter.clone()))]))
    });
    let counter = alive.clone();
    let look = node("Look", &["a: BIG", "b?: *"], &["INT"], move |_, _| {
        Ok(NodeOutput::values([counter.load(Ordering::Relaxed).into()]))
    });
    let nodes = prompt(&[
        ("1", "Make", &[("n", json!(1))]),
        ("2", "Make", &[("a", link("1")), ("n", json!(2))]),
        ("3", "Make", &[("a", link("2")), ("n", json!(3))]),
        ("4", "Look", &[("a", link("3"))]),
        ("5", "Show", &[("value", link("4"))]),
    ]);
    let mut bench = bench_with(CacheStrategy::None, [make, look]);
    for _ in 0..2 {
        let result = bench.run(nodes.clone());
        assert!(bench.cached().is_empty());
        // Only what is being looked at is still there.
        assert_eq!(texts(&result, "5"), json!(["1"]));
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn keys_ignore_ids_and_order_but_not_values() {
    let mut bench = bench_with(CacheStrategy::Classic, []);
    bench.run(chain("", json!(1)));
    for value in [json!(1), json!(1.0), json!(true), json!("1")] {
        bench.run(chain("x", value.clone()));
        assert_eq!(bench.cached(), ["x1", "x2", "x3"], "{value}");
    }
    let mut reversed = chain("", json!(1));
    let nodes = reversed.as_object_mut().expect("object");
    *nodes = std::mem::take(nodes).into_iter().rev().collect();
    nodes["1"]["_meta"] = json!({"title": "other"});
    bench.run(reversed);
    assert_eq!(bench.cached(), ["3", "2", "1"]);
    // A literal that the class does not declare counts.
    let mut extra = chain("", json!(1));
    extra["2"]["inputs"]["other"] = json!(5);
    bench.run(extra);
    assert_eq!(bench.cached(), ["1"]);
}

#[test]
fn fingerprints() {
    let stamp = Arc::new(AtomicU64::new(1));
    let clock = stamp.clone();
    let mut file =
        node("File", &["name: STRING", "a?: *"], &["INT"], |_, _| Ok(NodeOutput::values([1.into()])));
    file.changed = Some(Box::new(move |inputs| {
        assert!(inputs.get("a").is_none_or(|a| a.as_json() == Some(&Json::Null)), "links are null");
        match clock.load(Ordering::Relaxed) {
            0 => Err(NodeError::new("FileNotFoundError", "gone")),
            stamp => Ok(json!(stamp)),
        }
    }));
    let mut bench = bench_with(CacheStrategy::Classic, [file]);
    let nodes = prompt(&[
        ("0", "Int", &[("value", json!(1))]),
        ("1", "File", &[("name", json!("x")), ("a", link("0"))]),
        ("2", "Show", &[("value", link("1"))]),
    ]);
    for (now, cached) in [(1, 0), (1, 3), (2, 1), (2, 3), (0, 1), (0, 1)] {
        stamp.store(now, Ordering::Relaxed);
        bench.run(nodes.clone());
        assert_eq!(bench.cached().len(), cached, "stamp {now}");
    }
}

#[test]
fn some_classes_never_share() {
    let mut own = node("Own", &[], &["INT"], |_, _| Ok(NodeOutput::values([1.into()])));
    own.spec.hidden = vec![("id".into(), "UNIQUE_ID".into())];
    let mut once = node("Once", &[], &["INT"], |_, _| Ok(NodeOutput::values([1.into()])));
    once.spec.not_idempotent = true;
    let mut bench = bench_with(CacheStrategy::Classic, [own, once]);
    let nodes = |id: &str| {
        prompt(&[
            (id, "Own", &[]),
            ("b", "Once", &[]),
            ("c", "Once", &[]),
            ("d", "Add", &[("a", link("b")), ("b", link("c"))]),
            ("e", "Add", &[("a", link("d")), ("b", link(id))]),
            ("f", "Show", &[("value", link("e"))]),
        ])
    };
    bench.run(nodes("a"));
    assert_eq!(bench.started().len(), 6);
    bench.run(nodes("a"));
    assert_eq!(bench.cached().len(), 6);
    bench.run(nodes("z"));
    assert_eq!(bench.cached(), ["b", "c", "d"]);
}

#[test]
fn nodes_keep_a_state_as_long_as_they_appear() {
    let count = node("Count", &["a: INT"], &["INT"], |ctx, _| {
        let mut state = ctx.state.lock();
        let next = state.as_ref().and_then(|s| s.downcast_ref::<u64>()).map_or(1, |n| n + 1);
        *state = Some(Box::new(next));
        Ok(NodeOutput::values([next.into()]))
    });
    let mut bench = bench_with(CacheStrategy::Classic, [count]);
    let mut number = |id: &str, a: i64| {
        let nodes = prompt(&[(id, "Count", &[("a", json!(a))]), ("s", "Show", &[("value", link(id))])]);
        texts(&bench.run(nodes), "s")
    };
    assert_eq!(number("1", 1), json!(["1"]));
    assert_eq!(number("1", 2), json!(["2"]));
    assert_eq!(number("2", 3), json!(["1"]));
    assert_eq!(number("1", 4), json!(["1"]));
}

/// Counts its bytes as in use until it is dropped.
struct Held(Arc<AtomicU64>, u64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[test]
fn memory_pressure_evicts_the_large_and_the_old() {
    let used = Arc::new(AtomicU64::new(0));
    let probe = used.clone();
    let strategy =
        CacheStrategy::RamPressure { budget: 1000, probe: Arc::new(move || probe.load(Ordering::Relaxed)) };
    let memory = used.clone();
    let big = node("Big", &["n: INT"], &["BIG"], move |_, inputs| {
        let bytes = int(&inputs, "n") as u64;
        memory.fetch_add(bytes, Ordering::Relaxed);
        Ok(NodeOutput::values([Value::object("BIG", bytes as usize, Held(memory.clone(), bytes))]))
    });
    let mut bench = bench_with(strategy, [big]);
    let mut cached = |n: i64| {
        bench.run(prompt(&[("1", "Big", &[("n", json!(n))]), ("2", "Show", &[("value", link("1"))])]));
        bench.cached().len()
    };
    assert_eq!((cached(100), cached(900)), (0, 0));
    // No pressure: all stay, across prompts that do not contain them.
    assert_eq!((cached(100), cached(900)), (2, 2));
    // 500 bytes too many: the large result goes, the small one stays.
    assert_eq!(cached(500), 0);
    assert_eq!(used.load(Ordering::Relaxed), 600);
    assert_eq!((cached(100), cached(500)), (2, 2));
    assert!(cached(900) < 2);
}

#[test]
fn a_prompt_ends_well_under_any_pressure() {
    let strategy = CacheStrategy::RamPressure { budget: 0, probe: Arc::new(|| u64::MAX) };
    let mut bench = bench_with(strategy, []);
    let result = bench.run(chain("", json!(1)));
    assert_eq!(texts(&result, "3"), json!(["2"]));
}

#[test]
fn partial_runs_report_what_is_stored_elsewhere() {
    let mut bench = bench_with(CacheStrategy::Classic, []);
    let nodes = prompt(&[
        ("1", "Int", &[("value", json!(1))]),
        ("2", "Show", &[("value", link("1"))]),
        ("3", "Inc", &[("a", link("1"))]),
        ("4", "Show", &[("value", link("3"))]),
    ]);
    bench.run(nodes.clone());
    let mut accepted = bench.validate(nodes).expect("valid");
    accepted.outputs = vec!["4".into()];
    let result = bench.run_accepted(&accepted);
    assert_eq!(bench.cached(), ["1", "2", "3", "4"]);
    assert_eq!(texts(&result, "2"), json!(["1"]));
}
