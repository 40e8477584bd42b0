//! Random graphs.

use std::collections::HashMap;

use lattice_graph::{CacheStrategy, RunStatus};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use crate::nodes::{Bench, registry};

/// For each node the two places before it that it takes from; the first are sources.
fn graphs() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..40).prop_map(
        |picks| {
            let place = |pick: &prop::sample::Index, node: usize| pick.index(node.max(1));
            picks.iter().enumerate().map(|(node, (a, b))| (place(a, node), place(b, node))).collect()
        },
    )
}

/// Every node adds two earlier ones; the first, and only it, is a literal. `name` gives the ids.
fn prompt_of(graph: &[(usize, usize)], name: impl Fn(usize) -> String, reverse: bool) -> Json {
    let mut nodes: Vec<(String, Json)> = graph
        .iter()
        .enumerate()
        .map(|(node, &(a, b))| {
            // A literal of its own keeps equal sums apart.
            let inputs = match node {
                0 => json!({"value": 1}),
                _ => json!({"a": [name(a), 0], "b": [name(b), 0], "tag": node}),
            };
            (name(node), json!({"class_type": if node == 0 { "Int" } else { "Add" }, "inputs": inputs}))
        })
        .collect();
    let last = name(graph.len() - 1);
    nodes.push(("out".into(), json!({"class_type": "Show", "inputs": {"value": [last, 0]}})));
    if reverse {
        nodes.reverse();
    }
    nodes.into_iter().collect::<Map<_, _>>().into()
}

fn needed(graph: &[(usize, usize)]) -> Vec<usize> {
    let mut needed = vec![false; graph.len()];
    let mut stack = vec![graph.len() - 1];
    while let Some(node) = stack.pop() {
        if !std::mem::replace(&mut needed[node], true) && node > 0 {
            stack.extend([graph[node].0, graph[node].1]);
        }
    }
    (0..graph.len()).filter(|&node| needed[node]).collect()
}

fn sum(graph: &[(usize, usize)]) -> i64 {
    let mut sums = vec![1_i64; graph.len()];
    for node in 1..graph.len() {
        sums[node] = sums[graph[node].0].wrapping_add(sums[graph[node].1]);
    }
    sums[graph.len() - 1]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_needed_node_runs_once_and_after_its_sources(graph in graphs(), none in any::<bool>()) {
        let strategy = if none { CacheStrategy::None } else { CacheStrategy::Classic };
        let mut bench = Bench::new(registry(), strategy);
        let result = bench.run(prompt_of(&graph, |n| n.to_string(), false));
        prop_assert_eq!(&result.status, &RunStatus::Success);
        prop_assert_eq!(&result.outputs["out"].output["text"], &json!([sum(&graph).to_string()]));
        let started = bench.started();
        let place: HashMap<&str, usize> = started.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        prop_assert_eq!(place.len(), started.len());
        let needed = needed(&graph);
        prop_assert_eq!(started.len(), needed.len() + 1);
        for node in needed.into_iter().filter(|&node| node > 0) {
            let at = |node: usize| place[node.to_string().as_str()];
            prop_assert!(at(graph[node].0) < at(node) && at(graph[node].1) < at(node));
        }
    }

    #[test]
    fn renumbering_keeps_the_cache(graph in graphs(), reverse in any::<bool>()) {
        let mut bench = Bench::new(registry(), CacheStrategy::Classic);
        bench.run(prompt_of(&graph, |n| n.to_string(), false));
        bench.run(prompt_of(&graph, |n| format!("x{}", 100 - n), reverse));
        prop_assert!(bench.started().is_empty());
        prop_assert_eq!(bench.cached().len(), needed(&graph).len() + 1);
    }
}

/// Far deeper than a thread's stack could take by recursion.
#[test]
fn deep_chains() {
    let depth = 10_000;
    let mut nodes = Map::new();
    nodes.insert("0".into(), json!({"class_type": "Int", "inputs": {"value": 0}}));
    for node in 1..=depth {
        nodes.insert(
            node.to_string(),
            json!({"class_type": "Inc", "inputs": {"a": [(node - 1).to_string(), 0]}}),
        );
    }
    nodes.insert("out".into(), json!({"class_type": "Show", "inputs": {"value": [depth.to_string(), 0]}}));
    let nodes = Json::Object(nodes);
    for strategy in [CacheStrategy::Classic, CacheStrategy::None, CacheStrategy::Lru(5)] {
        let mut bench = Bench::new(registry(), strategy);
        let result = bench.run(nodes.clone());
        assert_eq!(result.outputs["out"].output["text"], json!([depth.to_string()]));
        assert_eq!(bench.started().len(), depth + 2);
    }
}
