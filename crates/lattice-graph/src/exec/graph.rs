//! The prompt as it runs, with the nodes that expansions add.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};

use crate::key::{Key, KeyBuilder, NeverEqual};
use crate::{
    ExpandInput, ExpandLink, Expansion, Extensions, Inputs, Node, NodeError, NodeSpec, Registry, Value,
    prompt,
};

/// All nodes, by index.
#[derive(Default)]
pub(super) struct Graph {
    pub nodes: Vec<GraphNode>,
    index: HashMap<String, usize>,
    /// Count of keys that match nothing.
    nonce: u64,
}

pub(super) struct GraphNode {
    pub id: String,
    pub class: Arc<dyn Node>,
    pub inputs: IndexMap<String, Input>,
    /// Node shown to the user.
    pub display: String,
    /// The node that expanded into this one.
    pub parent: Option<usize>,
    /// Outermost original node.
    pub real: usize,
    pub key: Key,
}

pub(super) enum Input {
    /// A literal of a declared input.
    Value(Value),
    Link(Link),
    /// A literal that the class does not declare: no argument, but part of the key.
    Undeclared(Value),
}

#[derive(Clone)]
pub(super) struct Link {
    /// None for a node that is not in the prompt.
    pub source: Option<usize>,
    pub source_id: String,
    pub slot: usize,
    /// Its source runs only on demand.
    pub lazy: bool,
    /// The node gets the link itself.
    pub raw: bool,
}

impl GraphNode {
    pub(super) fn spec(&self) -> &NodeSpec {
        self.class.spec()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.inputs.values().filter_map(|input| match input {
            Input::Link(link) => Some(link),
            _ => None,
        })
    }
}

impl Graph {
    /// From an accepted prompt. Nodes of unknown classes, which validation does not let pass, are left out.
    pub(super) fn new(prompt: &Json, registry: &Registry, ext: &Extensions, first_nonce: u64) -> Self {
        let mut graph = Self { nonce: first_nonce, ..Self::default() };
        let classes = prompt.as_object().into_iter().flatten().filter_map(|(id, node)| {
            let class = registry.get(node.get("class_type")?.as_str()?)?;
            Some((id, node, class))
        });
        let classes: Vec<_> = classes.collect();
        graph.index = classes.iter().enumerate().map(|(index, (id, ..))| ((*id).clone(), index)).collect();
        for (index, (id, node, class)) in classes.into_iter().enumerate() {
            let inputs = node.get("inputs").and_then(Json::as_object);
            let inputs = inputs.into_iter().flatten().filter_map(|(name, value)| {
                let input = match prompt::link(value) {
                    Some((source, slot)) => graph.link(class.spec(), name, source, slot)?,
                    None => literal(class.spec(), name, Value::Json(value.clone())),
                };
                Some((name.clone(), input))
            });
            let node = GraphNode {
                id: id.clone(),
                class: class.clone(),
                inputs: inputs.collect(),
                display: id.clone(),
                parent: None,
                real: index,
                key: KeyBuilder::unique(first_nonce),
            };
            graph.nodes.push(node);
        }
        graph.compute_keys(0, ext);
        graph
    }

    pub(super) fn index_of(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// Where the next prompt's unique keys may start.
    pub(super) fn next_nonce(&self) -> u64 {
        self.nonce + 1
    }

    /// A link of a declared input; links of others would only run their source for nothing.
    fn link(&self, spec: &NodeSpec, name: &str, source: &str, slot: usize) -> Option<Input> {
        let declared = spec.input(name)?;
        Some(Input::Link(Link {
            source: self.index_of(source),
            source_id: source.to_owned(),
            slot,
            lazy: declared.is_lazy(),
            raw: declared.is_raw_link(),
        }))
    }

    /// Adds the nodes of an expansion and returns their indices. `call`: index of the call that returned it.
    pub(super) fn expand(
        &mut self,
        parent: usize,
        call: usize,
        expansion: &Expansion,
        registry: &Registry,
        ext: &Extensions,
    ) -> Result<Vec<usize>, NodeError> {
        let prefix = expansion_prefix(&self.nodes[parent].id, call);
        let first = self.nodes.len();
        for (offset, local) in expansion.nodes.keys().enumerate() {
            let id = format!("{prefix}{local}");
            if self.index.insert(id.clone(), first + offset).is_some() {
                let message = format!("The expansion adds node {id}, which is there already.");
                return Err(NodeError::new("DuplicateNodeError", message));
            }
        }
        let (display, real) = (self.nodes[parent].display.clone(), self.nodes[parent].real);
        for (local, node) in &expansion.nodes {
            let class = registry.get(&node.class_type).ok_or_else(|| {
                let message = format!("The expansion uses class {}, which does not exist.", node.class_type);
                NodeError::new("KeyError", message)
            })?;
            let mut inputs = IndexMap::new();
            for (name, input) in &node.inputs {
                let input = match input {
                    ExpandInput::Value(value) => Some(literal(class.spec(), name, value.clone())),
                    ExpandInput::Link(link) => {
                        let (source, slot) = self.resolve(parent, call, link)?;
                        self.link(class.spec(), name, &self.nodes_id(source, expansion, first, &prefix), slot)
                    }
                };
                if let Some(input) = input {
                    inputs.insert(name.clone(), input);
                }
            }
            self.nodes.push(GraphNode {
                id: format!("{prefix}{local}"),
                class: class.clone(),
                inputs,
                display: node.override_display_id.clone().unwrap_or_else(|| display.clone()),
                parent: Some(parent),
                real,
                key: self.nodes[parent].key,
            });
        }
        self.compute_keys(first, ext);
        Ok((first..self.nodes.len()).collect())
    }

    /// Id of a node that may still be under construction.
    fn nodes_id(&self, node: usize, expansion: &Expansion, first: usize, prefix: &str) -> String {
        if let Some(node) = self.nodes.get(node) {
            return node.id.clone();
        }
        let local = expansion.nodes.get_index(node - first).map_or("", |(local, _)| local);
        format!("{prefix}{local}")
    }

    /// The node and slot that a link made by an expansion names.
    pub(super) fn resolve(
        &self,
        parent: usize,
        call: usize,
        link: &ExpandLink,
    ) -> Result<(usize, usize), NodeError> {
        let (id, slot) = match link {
            ExpandLink::Local(local, slot) => {
                (format!("{}{local}", expansion_prefix(&self.nodes[parent].id, call)), *slot)
            }
            ExpandLink::Outer(id, slot) => (id.clone(), *slot),
        };
        let node = self.index_of(&id).ok_or_else(|| {
            NodeError::new("KeyError", format!("The expansion links to node {id}, which does not exist."))
        })?;
        Ok((node, slot))
    }

    /// Keys of the nodes from `first` on, sources before consumers.
    fn compute_keys(&mut self, first: usize, ext: &Extensions) {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut states = vec![State::New; self.nodes.len() - first];
        for start in first..self.nodes.len() {
            let mut stack = vec![start];
            while let Some(&node) = stack.last() {
                match states[node - first] {
                    State::New => {
                        states[node - first] = State::Open;
                        let sources = self.nodes[node].links().filter_map(|link| link.source);
                        stack.extend(sources.filter(|&s| s >= first && states[s - first] == State::New));
                    }
                    State::Open => {
                        let settled = |s: usize| s < first || states[s - first] == State::Done;
                        let key = self.key(node, ext, settled);
                        self.nodes[node].key = key;
                        states[node - first] = State::Done;
                        stack.pop();
                    }
                    State::Done => {
                        stack.pop();
                    }
                }
            }
        }
    }

    fn key(&mut self, node: usize, ext: &Extensions, settled: impl Fn(usize) -> bool) -> Key {
        self.structural_key(node, ext, settled).unwrap_or_else(|NeverEqual| {
            self.nonce += 1;
            KeyBuilder::unique(self.nonce)
        })
    }

    fn structural_key(
        &self,
        node: usize,
        ext: &Extensions,
        settled: impl Fn(usize) -> bool,
    ) -> Result<Key, NeverEqual> {
        let node = &self.nodes[node];
        let spec = node.spec();
        let mut key = KeyBuilder::new(&spec.name);
        if let Some(parent) = node.parent {
            key.key(&self.nodes[parent].key, 0);
        }
        match fingerprint(node, ext) {
            None => key.json(&Json::Bool(false))?,
            Some(Ok(changed)) => key.json(&changed)?,
            Some(Err(error)) => {
                tracing::debug!(node = node.id, %error, "no fingerprint: the node counts as changed");
                return Err(NeverEqual);
            }
        }
        if spec.not_idempotent || spec.wants_hidden("UNIQUE_ID") {
            key.id(&node.id);
        }
        let mut inputs: Vec<_> = node.inputs.iter().collect();
        inputs.sort_unstable_by_key(|&(name, _)| name);
        for (name, input) in inputs {
            key.name(name);
            match input {
                Input::Value(value) | Input::Undeclared(value) => key.value(value)?,
                Input::Link(link) => {
                    let source = link.source.filter(|&source| settled(source)).ok_or(NeverEqual)?;
                    key.key(&self.nodes[source].key, link.slot);
                }
            }
        }
        Ok(key.finish())
    }

    /// The prompt with all expansions, as JSON.
    pub(super) fn to_json(&self) -> Json {
        let node = |node: &GraphNode| {
            let inputs: Map<String, Json> = node
                .inputs
                .iter()
                .map(|(name, input)| {
                    let value = match input {
                        Input::Value(value) | Input::Undeclared(value) => {
                            value.as_json().cloned().unwrap_or_else(|| Json::from(format!("{value:?}")))
                        }
                        Input::Link(link) => json!([link.source_id, link.slot]),
                    };
                    (name.clone(), value)
                })
                .collect();
            (node.id.clone(), json!({ "class_type": node.spec().name, "inputs": inputs }))
        };
        self.nodes.iter().map(node).collect::<Map<_, _>>().into()
    }
}

fn expansion_prefix(parent: &str, call: usize) -> String {
    // One graph per call: its index is always 0.
    format!("{parent}.{call}.0.")
}

fn literal(spec: &NodeSpec, name: &str, value: Value) -> Input {
    if spec.input(name).is_some() { Input::Value(value) } else { Input::Undeclared(value) }
}

/// What the node's result depends on beside its inputs; links count as null.
fn fingerprint(node: &GraphNode, ext: &Extensions) -> Option<Result<Json, NodeError>> {
    let inputs: Inputs = node
        .inputs
        .iter()
        .filter_map(|(name, input)| match input {
            Input::Value(value) => Some((name.clone(), value.clone())),
            Input::Link(_) => Some((name.clone(), Value::NULL)),
            Input::Undeclared(_) => None,
        })
        .collect();
    super::call::guarded(|| node.class.fingerprint(ext, &inputs).transpose()).transpose()
}
