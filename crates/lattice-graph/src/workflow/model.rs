//! The file as it is.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::WorkflowError;

/// A workflow file.
pub(super) struct File {
    pub graph: Rc<Graph>,
    pub subgraphs: HashMap<String, Rc<Graph>>,
    /// Group node definitions by name.
    pub groups: Map<String, Json>,
}

/// Nodes and links: the top level, the inside of a subgraph or of a group node.
#[derive(Default)]
pub(super) struct Graph {
    pub nodes: Vec<FileNode>,
    pub index: HashMap<String, usize>,
    pub links: HashMap<i64, FileLink>,
    /// What the instances take and give.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Whether it is a group node: ports have no names of their own, widget values are put into the inner nodes.
    pub group: bool,
}

/// An input or output of a subgraph.
pub(super) struct Port {
    pub name: String,
    /// It leads to a widget.
    pub widget: bool,
    /// For an output: the link that feeds it.
    pub link: Option<i64>,
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub id: String,
    pub kind: String,
    pub mode: i64,
    pub inputs: Vec<FileInput>,
    pub outputs: Vec<FileOutput>,
    pub properties: Map<String, Json>,
    /// None in the object form, which built-in nodes ignore.
    pub values: Option<Vec<Json>>,
    pub title: Option<String>,
}

#[derive(Clone)]
pub(super) struct FileInput {
    pub name: String,
    pub kind: String,
    pub link: Option<i64>,
    pub widget: bool,
}

#[derive(Clone)]
pub(super) struct FileOutput {
    pub name: String,
    pub kind: String,
}

#[derive(Clone)]
pub(super) struct FileLink {
    pub origin: Origin,
    pub origin_slot: usize,
    /// Index of the target node, None for the output side of a subgraph.
    pub target: Option<usize>,
    pub target_slot: usize,
}

/// Where a link starts.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    Node(usize),
    /// The input side of a subgraph.
    Outside,
}

impl FileNode {
    pub(super) fn is_muted(&self) -> bool {
        self.mode == 2
    }

    pub(super) fn is_bypassed(&self) -> bool {
        self.mode == 4
    }
}

fn malformed(what: impl Into<String>) -> WorkflowError {
    WorkflowError::Malformed(what.into())
}

/// Ids are numbers or texts.
pub(super) fn id_text(json: &Json) -> Option<String> {
    match json {
        Json::String(s) => Some(s.clone()),
        Json::Number(n) => {
            Some(n.as_f64().filter(|f| f.fract() == 0.0).map_or_else(|| n.to_string(), whole_text))
        }
        _ => None,
    }
}

fn whole_text(f: f64) -> String {
    format!("{f:.0}")
}

fn integer(json: Option<&Json>) -> Option<i64> {
    let json = json?;
    json.as_i64()
        .or_else(|| json.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64))
        .or_else(|| json.as_str()?.parse().ok())
}

fn text(json: &Json, key: &str) -> String {
    json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(json: &'a Json, key: &str) -> &'a [Json] {
    json.get(key).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

impl File {
    pub(super) fn parse(json: &Json) -> Result<Self, WorkflowError> {
        if !super::is_workflow(json) {
            return Err(malformed("there is no list of nodes"));
        }
        let definitions = json.get("definitions").map_or(&[][..], |d| list(d, "subgraphs"));
        let mut subgraphs = HashMap::new();
        for definition in definitions {
            subgraphs.insert(text(definition, "id"), Rc::new(Graph::parse(definition)?));
        }
        let groups = json.get("extra").and_then(|extra| extra.get("groupNodes")).and_then(Json::as_object);
        Ok(Self {
            graph: Rc::new(Graph::parse(json)?),
            subgraphs,
            groups: groups.cloned().unwrap_or_default(),
        })
    }
}

impl Graph {
    fn parse(json: &Json) -> Result<Self, WorkflowError> {
        let mut graph = Self::default();
        for node in list(json, "nodes") {
            graph.push(FileNode::parse(node)?);
        }
        let side = |key: &str, default: i64| {
            integer(json.get(key).and_then(|side| side.get("id"))).unwrap_or(default)
        };
        let (input_side, output_side) =
            (side("inputNode", -10).to_string(), side("outputNode", -20).to_string());
        for link in list(json, "links") {
            let (id, ends) = parse_link(link)
                .ok_or_else(|| malformed(format!("link {link} has not the parts of a link")))?;
            let origin = match graph.index.get(&ends.origin) {
                Some(&node) => Origin::Node(node),
                None if ends.origin == input_side => Origin::Outside,
                None => continue,
            };
            let target = graph.index.get(&ends.target).copied();
            if target.is_none() && ends.target != output_side {
                continue;
            }
            let (origin_slot, target_slot) = (ends.origin_slot, ends.target_slot);
            graph.links.insert(id, FileLink { origin, origin_slot, target, target_slot });
        }
        graph.outputs = ports(list(json, "outputs"));
        graph.inputs = ports(list(json, "inputs"));
        graph.settle_ports();
        Ok(graph)
    }

    pub(super) fn push(&mut self, node: FileNode) {
        self.index.insert(node.id.clone(), self.nodes.len());
        self.nodes.push(node);
    }

    /// Finds what feeds the outputs and which inputs lead to widgets.
    fn settle_ports(&mut self) {
        for (&id, link) in &self.links {
            match (link.origin, link.target) {
                (_, None) => {
                    if let Some(port) = self.outputs.get_mut(link.target_slot) {
                        port.link = Some(id);
                    }
                }
                (Origin::Outside, Some(target)) => {
                    // The slot is looked up by the link it holds: slot numbers in files may be stale.
                    let slot = self.nodes[target].inputs.iter().find(|slot| slot.link == Some(id));
                    if let (Some(port), Some(slot)) = (self.inputs.get_mut(link.origin_slot), slot) {
                        port.widget |= slot.widget;
                    }
                }
                _ => {}
            }
        }
    }
}

fn ports(ports: &[Json]) -> Vec<Port> {
    ports.iter().map(|port| Port { name: text(port, "name"), widget: false, link: None }).collect()
}

struct Ends {
    origin: String,
    origin_slot: usize,
    target: String,
    target_slot: usize,
}

fn parse_link(json: &Json) -> Option<(i64, Ends)> {
    let part = |index: usize, key: &str| if json.is_array() { json.get(index) } else { json.get(key) };
    let slot = |json: Option<&Json>| integer(json).and_then(|slot| usize::try_from(slot).ok());
    let ends = Ends {
        origin: id_text(part(1, "origin_id")?)?,
        origin_slot: slot(part(2, "origin_slot")).unwrap_or(usize::MAX),
        target: id_text(part(3, "target_id")?)?,
        target_slot: slot(part(4, "target_slot")).unwrap_or(usize::MAX),
    };
    Some((integer(part(0, "id"))?, ends))
}

impl FileNode {
    pub(super) fn parse(json: &Json) -> Result<Self, WorkflowError> {
        let id = json.get("id").and_then(id_text).ok_or_else(|| malformed("a node has no id"))?;
        Ok(Self { id, ..Self::parse_without_id(json) })
    }

    pub(super) fn parse_without_id(json: &Json) -> Self {
        // A type may be 0, which fits all.
        let kind = |slot: &Json| slot.get("type").and_then(id_text).unwrap_or_default();
        let inputs = list(json, "inputs").iter().map(|slot| FileInput {
            name: text(slot, "name"),
            kind: kind(slot),
            link: integer(slot.get("link")),
            widget: slot.get("widget").is_some_and(|widget| !widget.is_null()),
        });
        let outputs = list(json, "outputs")
            .iter()
            .map(|slot| FileOutput { name: text(slot, "name"), kind: kind(slot) });
        Self {
            id: String::new(),
            kind: text(json, "type"),
            mode: integer(json.get("mode")).unwrap_or(0),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            properties: json.get("properties").and_then(Json::as_object).cloned().unwrap_or_default(),
            values: json.get("widgets_values").and_then(Json::as_array).cloned(),
            title: json.get("title").and_then(Json::as_str).map(str::to_owned),
        }
    }
}
