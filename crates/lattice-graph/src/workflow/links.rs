//! Where a link really comes from: through reroutes, bypassed nodes, in and out of subgraphs.

use serde_json::Value as Json;

use super::Specs;
use super::flatten::Flat;
use super::model::{FileInput, FileNode, Origin};
use super::widgets::is_widget;
use crate::{InputKind, NodeSpec};

/// What an input gets.
pub(super) enum Source {
    /// A node (level and index) and its output slot.
    Node(usize, usize, usize),
    /// The value of a widget of an instance, or of a primitive.
    Literal(Json),
    /// The value of a primitive that has text replacement of its own switched on.
    Rewritten(Json),
}

/// Node types without a class of their own.
pub(super) fn is_virtual(kind: &str) -> bool {
    ["Note", "MarkdownNote", "Reroute", "PrimitiveNode"].contains(&kind)
}

/// Whether two types of links fit: in any case of letters, by intersection of comma lists, all with `*`, empty or 0.
fn fits(a: &str, b: &str) -> bool {
    let any = |t: &str| ["", "*", "0"].contains(&t);
    let members = |t: &str| t.to_lowercase().split(',').map(str::to_owned).collect::<Vec<_>>();
    any(a) || any(b) || members(a).iter().any(|member| members(b).contains(member))
}

/// Follows a link of a level. `wanted`: type of the input that asks.
pub(super) fn resolve(
    flat: &Flat,
    specs: &dyn Specs,
    level: usize,
    link: i64,
    wanted: &str,
) -> Option<Source> {
    let (mut level, mut link) = (level, link);
    // Each step crosses a link of some level; more steps than links means a circle.
    let most: usize = flat.levels.iter().map(|level| level.graph.links.len()).sum();
    for _ in 0..=most {
        let graph = &flat.levels[level].graph;
        let found = graph.links.get(&link)?;
        let node_index = match found.origin {
            Origin::Node(node) => node,
            Origin::Outside => {
                let (outer, instance) = flat.levels[level].instance?;
                match instance_input(flat, outer, instance, found.origin_slot)? {
                    Port::Link(next) => (level, link) = (outer, next),
                    Port::Value(value) => return Some(Source::Literal(value)),
                }
                continue;
            }
        };
        let (node, slot) = (&graph.nodes[node_index], found.origin_slot);
        if node.kind == "PrimitiveNode" {
            let value = node.values.as_ref()?.first()?.clone();
            let rewritten = node.properties.get("Run widget replace on values") == Some(&Json::Bool(true));
            return Some(if rewritten { Source::Rewritten(value) } else { Source::Literal(value) });
        }
        if is_virtual(&node.kind) {
            link = node.inputs.get(slot)?.link?;
        } else if node.is_bypassed() {
            link = bypass(node, specs.spec(&node.kind), slot, wanted)?;
        } else if let Some(inner) = flat.inside(level, node_index) {
            link = instance_output(flat, inner, node, slot)?;
            level = inner;
        } else {
            return Some(Source::Node(level, node_index, slot));
        }
    }
    None
}

/// What feeds an instance's input.
enum Port {
    Link(i64),
    Value(Json),
}

fn instance_input(flat: &Flat, level: usize, instance: usize, port: usize) -> Option<Port> {
    let node = flat.node(level, instance);
    let graph = &flat.levels[flat.inside(level, instance)?].graph;
    let declared = graph.inputs.get(port)?;
    let input = if graph.group {
        group_input(node, graph, port)
    } else {
        node.inputs.iter().find(|input| input.name == declared.name)
    };
    if let Some(link) = input.and_then(|input| input.link) {
        return Some(Port::Link(link));
    }
    // The values of a group node are in its inner nodes already.
    if graph.group || !declared.widget {
        return None;
    }
    let place = graph.inputs[..port].iter().filter(|port| port.widget).count();
    node.values.as_ref()?.get(place).cloned().map(Port::Value)
}

/// A group node's inputs have no names of their own: they go by their place. Files that leave out unlinked widgets
/// have fewer; then sockets go by their place among sockets, widgets by name.
fn group_input<'a>(node: &'a FileNode, graph: &super::model::Graph, port: usize) -> Option<&'a FileInput> {
    if node.inputs.len() == graph.inputs.len() {
        return node.inputs.get(port);
    }
    let declared = &graph.inputs[port];
    if declared.widget {
        return node.inputs.iter().find(|input| input.widget && input.name == declared.name);
    }
    let place = graph.inputs[..port].iter().filter(|port| !port.widget).count();
    node.inputs.iter().filter(|input| !input.widget).nth(place)
}

/// The inner link that feeds an instance's output.
fn instance_output(flat: &Flat, inner: usize, node: &FileNode, slot: usize) -> Option<i64> {
    let graph = &flat.levels[inner].graph;
    let by_name = node
        .outputs
        .get(slot)
        .filter(|_| !graph.group)
        .and_then(|output| graph.outputs.iter().find(|port| port.name == output.name));
    by_name.or_else(|| graph.outputs.get(slot))?.link
}

/// A slot as it is when the editor runs: sockets first, then one per widget.
struct RuntimeInput {
    kind: String,
    link: Option<i64>,
}

fn runtime_inputs(node: &FileNode, spec: Option<&NodeSpec>) -> Vec<RuntimeInput> {
    let Some(spec) = spec else {
        let inputs = node.inputs.iter();
        return inputs.map(|input| RuntimeInput { kind: input.kind.clone(), link: input.link }).collect();
    };
    let (widgets, sockets): (Vec<_>, Vec<_>) = spec.inputs.iter().partition(|input| is_widget(input));
    let slot = |input: &crate::InputSpec| RuntimeInput {
        kind: kind_name(&input.kind).to_owned(),
        link: node.inputs.iter().find(|slot| slot.name == input.name).and_then(|slot| slot.link),
    };
    sockets.into_iter().chain(widgets).map(slot).collect()
}

fn kind_name(kind: &InputKind) -> &str {
    match kind {
        InputKind::Type(t) => t,
        InputKind::Combo(_) | InputKind::Choices(_) => "COMBO",
    }
}

/// The link that a bypassed node passes on at an output.
fn bypass(node: &FileNode, spec: Option<&NodeSpec>, slot: usize, wanted: &str) -> Option<i64> {
    let inputs = runtime_inputs(node, spec);
    let declared = spec.and_then(|spec| spec.outputs.get(slot)).map(|output| kind_name(&output.kind));
    let given =
        declared.or_else(|| node.outputs.get(slot).map(|output| output.kind.as_str())).unwrap_or_default();
    if ["", "*", "0"].contains(&wanted) {
        return inputs.get(slot).or_else(|| inputs.first())?.link;
    }
    let fits_both = |input: &&RuntimeInput| fits(&input.kind, given) && fits(&input.kind, wanted);
    let same_place = inputs.get(slot).filter(fits_both);
    let same_type = || inputs.iter().find(|input| input.kind == wanted);
    same_place.or_else(same_type).or_else(|| inputs.iter().find(fits_both))?.link
}
