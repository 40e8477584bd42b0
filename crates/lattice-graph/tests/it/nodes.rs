//! Nodes made for the tests, and a bench to run prompts on.

use std::sync::Arc;

use lattice_graph::{
    Accepted, Blocker, CacheStrategy, CallContext, Choices, Event, Executor, Extensions, InputKind,
    InputSpec, Inputs, InterruptFlag, ListInputs, Node, NodeError, NodeOutput, NodeSpec, OutputSpec, Prompt,
    Registry, RunResult, Slot, ValidationFailure, Value, validate,
};
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

type Function = dyn Fn(&CallContext<'_>, Inputs) -> Result<NodeOutput, NodeError> + Send + Sync;
type ListFunction = dyn Fn(ListInputs) -> NodeOutput + Send + Sync;
type Lazy = dyn Fn(&Inputs) -> Vec<String> + Send + Sync;
type Fingerprint = dyn Fn(&Inputs) -> Result<Json, NodeError> + Send + Sync;
type Validator = dyn Fn(&Inputs) -> Result<(), String> + Send + Sync;

/// A node put together from closures.
pub(crate) struct TestNode {
    pub(crate) spec: NodeSpec,
    pub(crate) function: Box<Function>,
    pub(crate) list: Option<Box<ListFunction>>,
    pub(crate) lazy: Option<Box<Lazy>>,
    pub(crate) changed: Option<Box<Fingerprint>>,
    pub(crate) validator: Option<(Vec<&'static str>, Box<Validator>)>,
}

impl Node for TestNode {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn call(&self, ctx: &CallContext<'_>, inputs: Inputs) -> Result<NodeOutput, NodeError> {
        (self.function)(ctx, inputs)
    }

    fn call_list(&self, _ctx: &CallContext<'_>, inputs: ListInputs) -> Result<NodeOutput, NodeError> {
        self.list.as_ref().map(|list| list(inputs)).ok_or_else(|| NodeError::new("TypeError", "no lists"))
    }

    fn check_lazy(&self, _ctx: &CallContext<'_>, inputs: &Inputs) -> Option<Result<Vec<String>, NodeError>> {
        self.lazy.as_ref().map(|lazy| Ok(lazy(inputs)))
    }

    fn fingerprint(&self, _ext: &Extensions, inputs: &Inputs) -> Option<Result<Json, NodeError>> {
        self.changed.as_ref().map(|changed| changed(inputs))
    }

    fn validated_inputs(&self) -> &[&str] {
        self.validator.as_ref().map_or(&[], |(names, _)| names)
    }

    fn validate(&self, _ext: &Extensions, inputs: &Inputs) -> Result<(), String> {
        self.validator.as_ref().map_or(Ok(()), |(_, validator)| validator(inputs))
    }
}

/// Class `name`; inputs `name[?]: TYPE` (`?` optional), outputs types, `[]` after a type for a list.
pub(crate) fn node(
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    function: impl Fn(&CallContext<'_>, Inputs) -> Result<NodeOutput, NodeError> + Send + Sync + 'static,
) -> TestNode {
    let input = |text: &&str| {
        let (name, kind) = text.split_once(": ").expect("name: TYPE");
        InputSpec {
            name: name.trim_end_matches('?').to_owned(),
            kind: InputKind::Type(kind.to_owned()),
            optional: name.ends_with('?'),
            options: None,
        }
    };
    let output = |kind: &&str| OutputSpec {
        kind: InputKind::Type(kind.trim_end_matches("[]").to_owned()),
        name: kind.trim_end_matches("[]").to_owned(),
        is_list: kind.ends_with("[]"),
    };
    TestNode {
        spec: NodeSpec {
            name: name.to_owned(),
            inputs: inputs.iter().map(input).collect(),
            outputs: outputs.iter().map(output).collect(),
            ..NodeSpec::default()
        },
        function: Box::new(function),
        list: None,
        lazy: None,
        changed: None,
        validator: None,
    }
}

impl TestNode {
    pub(crate) fn output_node(mut self) -> Self {
        self.spec.output_node = true;
        self
    }

    pub(crate) fn options(mut self, input: &str, options: Json) -> Self {
        let input = self.spec.inputs.iter_mut().find(|i| i.name == input).expect("declared");
        input.options = options.as_object().cloned();
        self
    }

    pub(crate) fn choices(mut self, input: &str, choices: &[&str]) -> Self {
        let input = self.spec.inputs.iter_mut().find(|i| i.name == input).expect("declared");
        input.kind = InputKind::Choices(Choices::Fixed(choices.iter().map(|&c| c.into()).collect()));
        self
    }
}

/// An integer input.
pub(crate) fn int(inputs: &Inputs, name: &str) -> i64 {
    inputs.get(name).and_then(Value::as_json).and_then(Json::as_i64).unwrap_or(-1)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Json(Json::String(s)) => s.clone(),
        Value::Json(json) => json.to_string(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn ui_text(texts: Vec<Json>) -> Map<String, Json> {
    Map::from_iter([("text".to_owned(), texts.into())])
}

/// The classes all tests share.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.insert(
        node("Int", &["value: INT"], &["INT"], |_, inputs| {
            Ok(NodeOutput::values([int(&inputs, "value").into()]))
        })
        .options("value", json!({"min": -1000, "max": 100_000, "default": 0})),
    );
    registry.insert(node("Add", &["a: INT", "b: INT"], &["INT"], |_, inputs| {
        Ok(NodeOutput::values([(int(&inputs, "a") + int(&inputs, "b")).into()]))
    }));
    registry.insert(node("Inc", &["a: INT"], &["INT"], |_, inputs| {
        Ok(NodeOutput::values([(int(&inputs, "a") + 1).into()]))
    }));
    registry.insert(
        node("Show", &["value: *"], &[], |_, inputs| {
            Ok(NodeOutput::ui(ui_text(vec![text_of(&inputs["value"]).into()])))
        })
        .output_node(),
    );
    registry.insert(node("Range", &["count: INT"], &["INT[]"], |_, inputs| {
        let list = (0..int(&inputs, "count")).map(Value::from).collect();
        Ok(NodeOutput { slots: vec![Slot::Many(list)], ..NodeOutput::default() })
    }));
    let mut sum =
        node("Lists", &["a: *", "b: *"], &["STRING"], |_, _| Err(NodeError::new("TypeError", "one by one")));
    sum.spec.input_is_list = true;
    sum.list = Some(Box::new(|inputs| {
        let text = |name: &str| inputs[name].iter().map(text_of).collect::<Vec<_>>().join(",");
        NodeOutput::values([format!("[{}] [{}]", text("a"), text("b")).into()])
    }));
    registry.insert(sum);
    registry.insert(node("Fail", &["a?: *"], &["INT"], |_, _| {
        Err(NodeError { trace: vec!["cause".into()], ..NodeError::new("ValueError", "no luck") })
    }));
    registry.insert(node("Panic", &["a?: *"], &["INT"], |_, _| panic!("boom")));
    let mut switch = node("Switch", &["image1?: *", "image2?: *", "mask: INT"], &["*"], |_, mut inputs| {
        let name = if int(&inputs, "mask") == 0 { "image1" } else { "image2" };
        Ok(NodeOutput::values([inputs.shift_remove(name).unwrap_or(Value::NULL)]))
    });
    switch = switch.options("image1", json!({"lazy": true})).options("image2", json!({"lazy": true}));
    switch.lazy = Some(Box::new(|inputs| match int(inputs, "mask") {
        0 => vec!["image1".into()],
        1 => vec!["image2".into()],
        _ => vec!["nothing".into()],
    }));
    registry.insert(switch);
    registry.insert(node("Block", &["value: *", "message: STRING", "which: INT"], &["*"], |_, inputs| {
        let value = inputs["value"].clone();
        if int(&inputs, "which") >= 0 && Value::as_json(&value) != Some(&json!(int(&inputs, "which"))) {
            return Ok(NodeOutput::values([value]));
        }
        let message = Some(text_of(&inputs["message"])).filter(|m| !m.is_empty());
        Ok(NodeOutput::values([Value::Blocker(Blocker { message })]))
    }));
    registry
}

/// A registry, an executor and what it has sent.
pub(crate) struct Bench {
    pub(crate) registry: Arc<Registry>,
    pub(crate) executor: Executor,
    pub(crate) interrupt: InterruptFlag,
    pub(crate) events: Vec<Event>,
}

impl Bench {
    pub(crate) fn new(registry: Registry, strategy: CacheStrategy) -> Self {
        let registry = Arc::new(registry);
        Self {
            executor: Executor::new(registry.clone(), Extensions::default(), strategy),
            registry,
            interrupt: InterruptFlag::default(),
            events: Vec::new(),
        }
    }

    pub(crate) fn validate(&self, prompt: Json) -> Result<Accepted, ValidationFailure> {
        validate(Prompt::parse(prompt)?, &self.registry, &Extensions::default(), None)
    }

    /// Validates and runs; the events are kept until the next run.
    pub(crate) fn run(&mut self, prompt: Json) -> RunResult {
        let accepted = self.validate(prompt).expect("valid");
        self.run_accepted(&accepted)
    }

    pub(crate) fn run_accepted(&mut self, accepted: &Accepted) -> RunResult {
        let events = Mutex::new(Vec::new());
        let sink = |event: Event| events.lock().push(event);
        let result =
            self.executor.run(accepted, &json!({"extra_pnginfo": {"workflow": 1}}), &sink, &self.interrupt);
        self.events = events.into_inner();
        result
    }

    /// Nodes started, in order.
    pub(crate) fn started(&self) -> Vec<String> {
        let started = |event: &Event| match event {
            Event::Executing { node, .. } => Some(node.clone()),
            _ => None,
        };
        self.events.iter().filter_map(started).collect()
    }

    pub(crate) fn cached(&self) -> Vec<String> {
        let cached = |event: &Event| match event {
            Event::ExecutionCached { nodes } => Some(nodes.clone()),
            _ => None,
        };
        self.events.iter().find_map(cached).expect("always sent")
    }

    /// Messages in short: their kind and node.
    pub(crate) fn trace(&self) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::ExecutionStart => "start".to_owned(),
            Event::ExecutionCached { nodes } => format!("cached {}", nodes.join(",")),
            Event::Executing { node, display_node } if node == display_node => format!("executing {node}"),
            Event::Executing { node, display_node } => format!("executing {node} shown at {display_node}"),
            Event::Executed { node, output, .. } => format!("executed {node} {}", json!(output)),
            Event::ProgressState(state) => {
                let entry = state.latest().expect("a change");
                format!("{} {} {}/{}", entry.state, entry.node_id, entry.value, entry.max)
            }
            Event::Progress { entry, .. } => {
                format!("progress {} {}/{}", entry.node_id, entry.value, entry.max)
            }
            Event::Text { node, text } => format!("text {node} {text}"),
            Event::ExecutionSuccess => "success".to_owned(),
            Event::ExecutionError(failure) => format!("error {} {}", failure.node_id, failure.exception_type),
            Event::ExecutionBlocked(failure) => {
                format!("blocked {} {}", failure.node_id, failure.exception_message)
            }
            Event::ExecutionInterrupted { node_id, executed, .. } => {
                format!("interrupted {node_id} after {}", executed.join(","))
            }
        };
        self.events.iter().map(line).collect()
    }
}

/// UI texts of a node in a result.
pub(crate) fn texts(result: &RunResult, node: &str) -> Json {
    result.outputs.get(node).map_or(Json::Null, |ui| ui.output["text"].clone())
}

/// A prompt from `id: Class(input=value, ...)`; a value starting with `@` is a link to slot 0 of that id, `@id#slot`
/// to another slot.
pub(crate) fn prompt(nodes: &[(&str, &str, &[(&str, Json)])]) -> Json {
    let node = |&(id, class, inputs): &(&str, &str, &[(&str, Json)])| {
        let inputs: Map<String, Json> =
            inputs.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        (id.to_owned(), json!({ "class_type": class, "inputs": inputs }))
    };
    nodes.iter().map(node).collect::<Map<_, _>>().into()
}

pub(crate) fn link(id: &str) -> Json {
    json!([id, 0])
}
