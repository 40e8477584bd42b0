//! Group nodes of older files: a definition with inner nodes, and instances that hold the inner nodes' widget values.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::model::{FileLink, FileNode, Graph, Origin, Port};
use super::{Specs, WorkflowError, widgets};

/// Name of the definition, if the type is that of a group node.
pub(super) fn group_name(kind: &str) -> Option<&str> {
    kind.strip_prefix("workflow>").or_else(|| kind.strip_prefix("workflow/"))
}

/// The inside of an instance.
pub(super) fn inside(
    instance: &FileNode,
    definition: &Json,
    specs: &dyn Specs,
) -> Result<Graph, WorkflowError> {
    let malformed = |what: &str| WorkflowError::Malformed(format!("group node {}: {what}", instance.kind));
    let nodes =
        definition.get("nodes").and_then(Json::as_array).ok_or_else(|| malformed("no list of nodes"))?;
    let mut graph = Graph { group: true, ..Graph::default() };
    let mut values = instance.values.iter().flatten();
    for (place, json) in nodes.iter().enumerate() {
        let index = json.get("index").and_then(Json::as_u64).unwrap_or(place as u64);
        let mut node = FileNode { id: index.to_string(), ..FileNode::parse_without_id(json) };
        let count = specs.spec(&node.kind).map_or(0, widgets::value_count);
        let own = node.values.get_or_insert_default();
        for (place, value) in values.by_ref().take(count).enumerate() {
            match own.get_mut(place) {
                Some(own) => *own = value.clone(),
                None => own.push(value.clone()),
            }
        }
        // Link ids of the definition mean nothing here.
        node.inputs.iter_mut().for_each(|input| input.link = None);
        graph.push(node);
    }
    let used = add_inner_links(&mut graph, definition);
    add_inputs(&mut graph);
    add_outputs(&mut graph, definition, &used);
    Ok(graph)
}

/// A place `[index, slot]` in a definition.
fn place(json: &Json, at: usize) -> Option<(usize, usize)> {
    let number = |at: usize| json.get(at).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
    Some((number(at)?, number(at + 1)?))
}

/// Links between inner nodes; returns the outputs they start at.
fn add_inner_links(graph: &mut Graph, definition: &Json) -> HashSet<(usize, usize)> {
    let mut used = HashSet::new();
    let links = definition.get("links").and_then(Json::as_array);
    for link in links.into_iter().flatten() {
        let (Some(from), Some(to)) = (place(link, 0), place(link, 2)) else { continue };
        let id = graph.links.len() as i64;
        if from.0 < graph.nodes.len()
            && let Some(input) = graph.nodes.get_mut(to.0).and_then(|node| node.inputs.get_mut(to.1))
        {
            input.link = Some(id);
            used.insert(from);
            let (origin, target) = (Origin::Node(from.0), Some(to.0));
            graph.links.insert(id, FileLink { origin, origin_slot: from.1, target, target_slot: to.1 });
        }
    }
    used
}

/// Inner inputs without an inner link are the group node's inputs, in that order.
fn add_inputs(graph: &mut Graph) {
    let mut ports = Vec::new();
    let mut links = HashMap::new();
    let first = graph.links.len();
    for (node_index, node) in graph.nodes.iter_mut().enumerate() {
        for (slot, input) in node.inputs.iter_mut().enumerate().filter(|(_, input)| input.link.is_none()) {
            let id = (first + ports.len()) as i64;
            input.link = Some(id);
            let (origin_slot, target) = (ports.len(), Some(node_index));
            links.insert(id, FileLink { origin: Origin::Outside, origin_slot, target, target_slot: slot });
            ports.push(Port { name: input.name.clone(), widget: input.widget, link: None });
        }
    }
    graph.links.extend(links);
    graph.inputs = ports;
}

/// Inner outputs that nothing inside uses, or that the definition names as external, are the group node's outputs.
fn add_outputs(graph: &mut Graph, definition: &Json, used: &HashSet<(usize, usize)>) {
    let external = definition.get("external").and_then(Json::as_array);
    let external: HashSet<_> = external.into_iter().flatten().filter_map(|entry| place(entry, 0)).collect();
    let mut ports = Vec::new();
    let mut links = HashMap::new();
    for (node_index, node) in graph.nodes.iter().enumerate() {
        for (slot, output) in node.outputs.iter().enumerate() {
            let from = (node_index, slot);
            if used.contains(&from) && !external.contains(&from) {
                continue;
            }
            let id = (graph.links.len() + links.len()) as i64;
            let origin = Origin::Node(node_index);
            links.insert(id, FileLink { origin, origin_slot: slot, target: None, target_slot: ports.len() });
            ports.push(Port { name: output.name.clone(), widget: false, link: Some(id) });
        }
    }
    graph.links.extend(links);
    graph.outputs = ports;
}
