//! A chain of 10,000 nodes: validation, execution, and execution with everything cached.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use lattice_graph::{
    CacheStrategy, CallContext, Executor, Extensions, InputKind, InputSpec, Inputs, InterruptFlag, Node,
    NodeError, NodeOutput, NodeSpec, OutputSpec, Prompt, Registry, Value, validate,
};
use serde_json::{Map, Value as Json, json};

const NODES: usize = 10_000;

struct Pass(NodeSpec);

impl Pass {
    fn new(name: &str, output_node: bool) -> Self {
        let kind = || InputKind::Type("X".into());
        Self(NodeSpec {
            name: name.into(),
            inputs: vec![InputSpec { name: "a".into(), kind: kind(), optional: true, options: None }],
            outputs: vec![OutputSpec { kind: kind(), name: "X".into(), is_list: false }],
            output_node,
            ..NodeSpec::default()
        })
    }
}

impl Node for Pass {
    fn spec(&self) -> &NodeSpec {
        &self.0
    }

    fn call(&self, _ctx: &CallContext<'_>, mut inputs: Inputs) -> Result<NodeOutput, NodeError> {
        Ok(NodeOutput::values([inputs.shift_remove("a").unwrap_or(Value::NULL)]))
    }
}

fn chain() -> Json {
    let node = |index: usize| {
        let class = if index == NODES - 1 { "End" } else { "Pass" };
        let inputs = if index == 0 { json!({}) } else { json!({"a": [(index - 1).to_string(), 0]}) };
        (index.to_string(), json!({"class_type": class, "inputs": inputs}))
    };
    (0..NODES).map(node).collect::<Map<_, _>>().into()
}

fn bench(c: &mut Criterion) {
    let mut registry = Registry::default();
    registry.insert(Pass::new("Pass", false));
    registry.insert(Pass::new("End", true));
    let registry = Arc::new(registry);
    let (ext, prompt) = (Extensions::default(), chain());
    let accept =
        || validate(Prompt::parse(prompt.clone()).expect("a prompt"), &registry, &ext, None).expect("valid");
    let mut group = c.benchmark_group("chain of 10000");
    group.sample_size(10);
    group.bench_function("validate", |b| b.iter(accept));
    let accepted = accept();
    let flag = InterruptFlag::default();
    group.bench_function("run", |b| {
        b.iter(|| {
            let mut executor = Executor::new(registry.clone(), ext.clone(), CacheStrategy::Classic);
            executor.run(&accepted, &Json::Null, &|_| (), &flag)
        });
    });
    let mut executor = Executor::new(registry.clone(), ext.clone(), CacheStrategy::Classic);
    executor.run(&accepted, &Json::Null, &|_| (), &flag);
    group.bench_function("run cached", |b| b.iter(|| executor.run(&accepted, &Json::Null, &|_| (), &flag)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
