//! One run of one prompt: picks nodes, gathers inputs, has them called, files their results.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use indexmap::IndexMap;
use serde_json::{Value as Json, json};

use super::call::{Called, Calls, Gathered};
use super::graph::{Graph, Input, Link};
use super::order::Pending;
use super::shared::{Identity, Shared, Task};
use crate::cache::{Cache, Entry, Outputs};
use crate::{
    Blocker, Event, ExpandLink, Expansion, NodeError, NodeFailure, NodeOutput, Registry, Slot, UiMeta,
    UiOutput, Value,
};

/// Why a run ended early.
pub(super) enum Stop {
    Failed(Box<NodeFailure>),
    /// The event to send.
    Interrupted(Box<Event>),
}

type Finished = (usize, Result<Calls, NodeError>);

pub(super) struct Run<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared<'env>,
    registry: &'env Registry,
    cache: &'env mut Cache,
    graph: Graph,
    pending: Pending,
    /// Results of this run, by node, as long as somebody may want them.
    results: Vec<Option<Arc<Outputs>>>,
    /// By node, how many links of pending nodes lead to it.
    wanted: Vec<usize>,
    /// UI outputs of this run, by node.
    ui: IndexMap<usize, Arc<UiOutput>>,
    /// Nodes that wait for what they expanded into.
    expanded: HashMap<usize, Calls>,
    /// Async nodes that are done but not yet collected.
    finished: HashMap<usize, Result<Calls, NodeError>>,
    /// Number of async nodes that are not done.
    running: usize,
    channel: (Sender<Finished>, Receiver<Finished>),
    /// Ids of the nodes completed, in order.
    executed: Vec<String>,
}

impl<'scope, 'env> Run<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared<'env>,
        registry: &'env Registry,
        cache: &'env mut Cache,
        graph: Graph,
    ) -> Self {
        let mut run = Self {
            scope,
            shared,
            registry,
            cache,
            graph,
            pending: Pending::default(),
            results: Vec::new(),
            wanted: Vec::new(),
            ui: IndexMap::new(),
            expanded: HashMap::new(),
            finished: HashMap::new(),
            running: 0,
            channel: channel(),
            executed: Vec::new(),
        };
        run.make_room();
        run
    }

    fn make_room(&mut self) {
        self.results.resize(self.graph.nodes.len(), None);
        self.wanted.resize(self.graph.nodes.len(), 0);
    }

    pub(super) fn next_nonce(&self) -> u64 {
        self.graph.next_nonce()
    }

    /// Executes the output nodes and all they need.
    pub(super) fn execute(&mut self, outputs: &[String]) -> Result<(), Stop> {
        for output in outputs {
            if let Some(node) = self.graph.index_of(output) {
                self.add(node);
            }
        }
        loop {
            while let Ok(done) = self.channel.1.try_recv() {
                self.note_finished(done);
            }
            match self.pending.next() {
                Some(node) => self.step(node)?,
                None if self.pending.is_empty() => return Ok(()),
                None if self.running > 0 => {
                    // Cannot fail: this run holds a sender itself.
                    if let Ok(done) = self.channel.1.recv() {
                        self.note_finished(done);
                    }
                }
                None => return Err(self.cycle()),
            }
        }
    }

    fn note_finished(&mut self, (node, result): Finished) {
        self.running -= 1;
        self.finished.insert(node, result);
        self.pending.back(node);
    }

    /// Puts a node on the list, with all it needs that is not stored.
    fn add(&mut self, node: usize) {
        let mut stack = vec![node];
        let mut edges = Vec::new();
        while let Some(node) = stack.pop() {
            if self.pending.contains(node) {
                continue;
            }
            let spec = self.graph.nodes[node].spec();
            self.pending.add(node, spec.output_node, spec.is_async);
            let mut sources = Vec::new();
            for link in self.graph.nodes[node].links() {
                let Some(source) = link.source else { continue };
                self.wanted[source] += 1;
                if !link.lazy {
                    sources.push(source);
                }
            }
            for source in sources {
                if !self.hold(source) {
                    stack.push(source);
                    edges.push((source, node));
                }
            }
        }
        for (source, target) in edges {
            self.pending.block(source, target);
        }
    }

    /// Adds `source`, unless its result is stored, as a prerequisite of `node`.
    fn require(&mut self, source: usize, node: usize) {
        if !self.hold(source) {
            self.add(source);
            self.pending.block(source, node);
        }
    }

    /// Whether a node's result is stored; then it stays until its consumers have run, whatever the cache lets go of.
    fn hold(&mut self, node: usize) -> bool {
        self.results[node] = self.stored(node).cloned();
        self.results[node].is_some()
    }

    fn stored(&self, node: usize) -> Option<&Arc<Outputs>> {
        let of_this_run = self.results[node].as_ref();
        of_this_run.or_else(|| self.cache.get(&self.graph.nodes[node].key).map(|entry| &entry.outputs))
    }

    fn step(&mut self, node: usize) -> Result<(), Stop> {
        if let Some(result) = self.finished.remove(&node) {
            let calls = result.map_err(|error| self.stop(node, error))?;
            return self.collect(node, calls);
        }
        if let Some(calls) = self.expanded.remove(&node) {
            let sources = self.expansion_sources(node, &calls).map_err(|error| self.stop(node, error))?;
            self.file(node, &calls)?;
            self.release(sources.into_iter());
            return Ok(());
        }
        if self.stored(node).is_some() {
            self.repeat(node);
            return Ok(());
        }
        self.start(node)
    }

    /// A result is there already, from an earlier prompt or a node with the same key.
    fn repeat(&mut self, node: usize) {
        let entry = self.cache.get(&self.graph.nodes[node].key).cloned();
        let who = self.identity(node);
        let ui = entry.as_ref().and_then(|entry| entry.ui.clone());
        (self.shared.sink)(Event::Executed {
            node: who.id.clone(),
            display_node: who.display.clone(),
            output: ui.as_ref().map(|ui| ui.output.clone()),
        });
        if let Some(ui) = ui {
            self.ui.insert(node, ui);
        }
        if let Some(entry) = entry {
            self.results[node] = Some(entry.outputs);
        }
        self.shared.progress(&who, 1.0, 1.0, "finished");
        self.complete(node);
    }

    fn start(&mut self, node: usize) -> Result<(), Stop> {
        let who = self.identity(node);
        self.shared.progress(&who, 0.0, 1.0, "running");
        let inputs = self.gather(node);
        (self.shared.sink)(Event::Executing { node: who.id.clone(), display_node: who.display.clone() });
        let task = self.task(node, who);
        let names = self.shared.ask_lazy(&task, &inputs).map_err(|error| self.stop(node, error))?;
        let needed = self.lazy_sources(node, &names, &inputs).map_err(|error| self.stop(node, error))?;
        if !needed.is_empty() {
            for source in needed {
                self.require(source, node);
            }
            self.pending.back(node);
            return Ok(());
        }
        if task.class.spec().is_async {
            let (shared, sender) = (self.shared, self.channel.0.clone());
            self.running += 1;
            self.scope.spawn(move || {
                // The receiver is gone when the run has ended without this node.
                let _ = sender.send((node, shared.perform(&task, inputs)));
            });
            return Ok(());
        }
        let calls = self.shared.perform(&task, inputs).map_err(|error| self.stop(node, error))?;
        self.collect(node, calls)
    }

    fn task(&mut self, node: usize, who: Identity) -> Task {
        let wants_prompt = self.graph.nodes[node].spec().wants_hidden("DYNPROMPT");
        let dynamic_prompt = wants_prompt.then(|| self.graph.to_json());
        let class = self.graph.nodes[node].class.clone();
        let state = self.cache.state(&who.id, &class.spec().name, &who.real);
        Task { who, class, state, dynamic_prompt }
    }

    fn identity(&self, node: usize) -> Identity {
        let nodes = &self.graph.nodes;
        let node = &nodes[node];
        Identity {
            id: node.id.clone(),
            display: node.display.clone(),
            parent: node.parent.map(|parent| nodes[parent].id.clone()),
            real: nodes[node.real].id.clone(),
        }
    }

    /// The inputs of a node as far as their sources have run.
    fn gather(&self, node: usize) -> Gathered {
        let mut gathered = Gathered::default();
        for (name, input) in &self.graph.nodes[node].inputs {
            let list = match input {
                Input::Undeclared(_) => continue,
                Input::Value(value) => vec![value.clone()],
                Input::Link(link) if link.raw => vec![Value::Json(json!([link.source_id, link.slot]))],
                Input::Link(link) => self.linked(link).unwrap_or_else(|| {
                    gathered.missing.insert(name.clone());
                    vec![Value::NULL]
                }),
            };
            gathered.lists.insert(name.clone(), list);
        }
        gathered
    }

    fn linked(&self, link: &Link) -> Option<Vec<Value>> {
        self.stored(link.source?)?.get(link.slot).cloned()
    }

    /// Sources of the lazy inputs a node has asked for and not yet got.
    fn lazy_sources(
        &self,
        node: usize,
        names: &indexmap::IndexSet<String>,
        gathered: &Gathered,
    ) -> Result<Vec<usize>, NodeError> {
        let mut sources = Vec::new();
        for name in names {
            match self.graph.nodes[node].inputs.get(name) {
                Some(Input::Link(link)) => {
                    // A source that has run without giving this slot will not give it the next time either.
                    let open = link.source.filter(|&source| self.stored(source).is_none());
                    sources.extend(open.filter(|_| gathered.missing.contains(name)));
                }
                Some(Input::Value(_)) => {}
                _ => {
                    let message = format!("The node asks for its input {name}, which is not linked.");
                    return Err(NodeError::new("NodeInputError", message));
                }
            }
        }
        Ok(sources)
    }

    /// A node's calls are done: UI output first, then results or what they expand into.
    fn collect(&mut self, node: usize, calls: Calls) -> Result<(), Stop> {
        for message in &calls.messages {
            let failure = self.failure(node, "ExecutionBlocked", format!("Execution Blocked: {message}"));
            (self.shared.sink)(Event::ExecutionBlocked(failure));
        }
        if let Some(output) = calls.ui() {
            let who = self.identity(node);
            (self.shared.sink)(Event::Executed {
                node: who.id.clone(),
                display_node: who.display.clone(),
                output: Some(output.clone()),
            });
            let meta = UiMeta {
                node_id: who.id,
                display_node: who.display,
                parent_node: who.parent,
                real_node_id: who.real,
            };
            self.ui.insert(node, Arc::new(UiOutput { output, meta }));
        }
        let expands = calls.calls.iter().any(|called| match called {
            Called::Done(output) => {
                output.expand.is_some() || output.slots.iter().any(|slot| matches!(slot, Slot::Link(_)))
            }
            Called::Blocked => false,
        });
        if expands {
            return self.expand(node, calls).map_err(|error| self.stop(node, error));
        }
        self.file(node, &calls)
    }

    /// Adds the graphs that calls returned and sets the node aside until its results are there.
    fn expand(&mut self, node: usize, calls: Calls) -> Result<(), NodeError> {
        for (call, called) in calls.calls.iter().enumerate() {
            let Called::Done(NodeOutput { expand: Some(expansion), .. }) = called else { continue };
            for added in self.add_nodes(node, call, expansion)? {
                if self.graph.nodes[added].spec().output_node {
                    self.add(added);
                }
            }
        }
        for source in self.expansion_sources(node, &calls)? {
            self.wanted[source] += 1;
            self.require(source, node);
        }
        self.expanded.insert(node, calls);
        self.pending.back(node);
        Ok(())
    }

    fn add_nodes(
        &mut self,
        node: usize,
        call: usize,
        expansion: &Expansion,
    ) -> Result<Vec<usize>, NodeError> {
        let added = self.graph.expand(node, call, expansion, self.registry, self.shared.extensions)?;
        self.make_room();
        Ok(added)
    }

    /// Nodes that the results of an expanding node link to.
    fn expansion_sources(&self, node: usize, calls: &Calls) -> Result<Vec<usize>, NodeError> {
        let links = calls.calls.iter().enumerate().flat_map(|(call, called)| {
            let slots = match called {
                Called::Done(output) => output.slots.as_slice(),
                Called::Blocked => &[],
            };
            slots.iter().filter_map(move |slot| match slot {
                Slot::Link(link) => Some((call, link)),
                _ => None,
            })
        });
        links.map(|(call, link)| Ok(self.graph.resolve(node, call, link)?.0)).collect()
    }

    /// Files the results of a node that is done.
    fn file(&mut self, node: usize, calls: &Calls) -> Result<(), Stop> {
        let outputs = Arc::new(self.outputs(node, calls).map_err(|error| self.stop(node, error))?);
        let (key, real) = (self.graph.nodes[node].key, self.graph.nodes[node].real);
        let root = self.graph.nodes[real].key;
        self.results[node] = Some(outputs.clone());
        self.cache.insert(key, Entry { outputs, ui: self.ui.get(&node).cloned(), root });
        let who = self.identity(node);
        self.shared.finished(&who);
        self.executed.push(who.id);
        self.complete(node);
        Ok(())
    }

    /// Per slot the values of all calls.
    fn outputs(&self, node: usize, calls: &Calls) -> Result<Outputs, NodeError> {
        let declared = &self.graph.nodes[node].spec().outputs;
        let slots_of = |called: &Called| match called {
            Called::Done(output) => output.slots.len(),
            Called::Blocked => declared.len(),
        };
        let count = calls.calls.iter().map(slots_of).max().unwrap_or(0);
        let mut outputs = vec![Vec::new(); count];
        for (call, called) in calls.calls.iter().enumerate() {
            for (index, values) in outputs.iter_mut().enumerate() {
                let Called::Done(output) = called else {
                    values.push(Value::Blocker(Blocker::default()));
                    continue;
                };
                match output.slots.get(index) {
                    None => values.push(Value::NULL),
                    Some(Slot::One(value)) => values.push(value.clone()),
                    Some(Slot::Many(list)) if declared.get(index).is_some_and(|slot| slot.is_list) => {
                        values.extend(list.iter().cloned());
                    }
                    Some(Slot::Many(_)) => {
                        let message = format!("Output {index} is a list, which the class does not declare.");
                        return Err(NodeError::new("TypeError", message));
                    }
                    Some(Slot::Link(link)) => values.extend(self.expansion_result(node, call, link)?),
                }
            }
        }
        Ok(outputs)
    }

    fn expansion_result(&self, node: usize, call: usize, link: &ExpandLink) -> Result<Vec<Value>, NodeError> {
        let (source, slot) = self.graph.resolve(node, call, link)?;
        let list = self.stored(source).and_then(|outputs| outputs.get(slot)).cloned();
        Ok(list.unwrap_or_else(|| vec![Value::NULL]))
    }

    /// Takes a node off the list and lets go of results that nobody wants any more.
    fn complete(&mut self, node: usize) {
        self.pending.complete(node);
        let sources: Vec<usize> = self.graph.nodes[node].links().filter_map(|link| link.source).collect();
        self.release(sources.into_iter());
        if self.wanted[node] == 0 {
            self.let_go(node);
        }
    }

    fn release(&mut self, sources: impl Iterator<Item = usize>) {
        for source in sources {
            self.wanted[source] = self.wanted[source].saturating_sub(1);
            if self.wanted[source] == 0 {
                self.let_go(source);
            }
        }
    }

    fn let_go(&mut self, node: usize) {
        if self.cache.strategy.drops_spent() && self.results[node].take().is_some() {
            self.cache.spent(self.graph.nodes[node].key);
        }
    }

    fn failure(&self, node: usize, kind: &str, message: String) -> NodeFailure {
        let real = &self.graph.nodes[self.graph.nodes[node].real];
        NodeFailure {
            node_id: real.id.clone(),
            node_type: real.spec().name.clone(),
            executed: self.executed.clone(),
            exception_message: message,
            exception_type: kind.to_owned(),
            traceback: Vec::new(),
            current_inputs: json!({}),
            current_outputs: Vec::new(),
        }
    }

    fn stop(&self, node: usize, error: NodeError) -> Stop {
        if error.interrupted {
            let NodeFailure { node_id, node_type, executed, .. } = self.failure(node, "", String::new());
            return Stop::Interrupted(Box::new(Event::ExecutionInterrupted { node_id, node_type, executed }));
        }
        let tip = match error.kind.as_str() {
            "torch.OutOfMemoryError" => {
                "The device has no memory left. Smaller or fewer pictures, tiled decoding or a quantised model need less."
            }
            _ => "",
        };
        let mut failure = self.failure(node, &error.kind, format!("{}\n{tip}", error.message));
        failure.traceback = error.trace;
        failure.current_inputs = self.gather(node).describe();
        failure.current_outputs = self.node_ids();
        Stop::Failed(Box::new(failure))
    }

    fn node_ids(&self) -> Vec<String> {
        self.graph.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// All pending nodes block each other. Only an expansion or a lazy input can close such a circle.
    fn cycle(&self) -> Stop {
        let cycle = self.pending.cycle();
        let expanded = cycle.iter().find(|&&node| self.graph.nodes[node].parent.is_some());
        let Some(&node) = expanded.or(cycle.first()) else {
            return Stop::Failed(Box::default());
        };
        let message = "Dependency cycle detected".to_owned();
        let mut failure = self.failure(node, "graph.DependencyCycleError", message);
        failure.node_id.clone_from(&self.graph.nodes[node].display);
        failure.node_type.clone_from(&self.graph.nodes[node].spec().name);
        failure.current_inputs = Json::Array(Vec::new());
        failure.current_outputs = self.node_ids();
        Stop::Failed(Box::new(failure))
    }

    /// UI outputs of the prompt's nodes, stored ones among them, then those of nodes that expansions added.
    pub(super) fn ui_outputs(&self) -> IndexMap<String, UiOutput> {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes
            .filter_map(|(index, node)| {
                let of_this_run = self.ui.get(&index);
                let stored = || self.cache.get(&node.key)?.ui.as_ref().filter(|_| node.parent.is_none());
                let ui = of_this_run.or_else(stored)?;
                Some((node.id.clone(), UiOutput::clone(ui)))
            })
            .collect()
    }
}
