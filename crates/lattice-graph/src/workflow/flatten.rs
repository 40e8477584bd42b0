//! Graphs within graphs, unfolded: one level per instance, and the order in which the editor walks the nodes.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::group::{group_name, inside};
use super::model::{File, FileNode, Graph, Origin};
use super::{Specs, WorkflowError};

/// Nesting beyond this is taken for a circle.
const MAX_DEPTH: usize = 64;
/// More nodes than any workflow has; repeated nesting could otherwise ask for billions.
const MAX_NODES: usize = 1_000_000;

/// All levels; 0 is the top.
pub(super) struct Flat {
    pub levels: Vec<Level>,
    /// Level inside an instance, by (level, node).
    inner: HashMap<(usize, usize), usize>,
    /// All nodes that are no instances, as (level, node), in the editor's order.
    pub order: Vec<(usize, usize)>,
}

/// The inside of one instance.
pub(super) struct Level {
    pub graph: Rc<Graph>,
    /// What ids begin with: `12:7:`.
    pub prefix: String,
    /// The instance: level and node.
    pub instance: Option<(usize, usize)>,
    depth: usize,
}

impl Flat {
    pub(super) fn new(file: &File, specs: &dyn Specs) -> Result<Self, WorkflowError> {
        let top = Level { graph: file.graph.clone(), prefix: String::new(), instance: None, depth: 0 };
        let mut flat = Self { levels: vec![top], inner: HashMap::new(), order: Vec::new() };
        flat.unfold(file, specs)?;
        flat.order = flat.walk();
        Ok(flat)
    }

    fn unfold(&mut self, file: &File, specs: &dyn Specs) -> Result<(), WorkflowError> {
        let (mut level, mut count) = (0, 0);
        while level < self.levels.len() {
            let graph = self.levels[level].graph.clone();
            count += graph.nodes.len();
            for (index, node) in graph.nodes.iter().enumerate() {
                let Some(inner) = inner_graph(file, node, specs)? else { continue };
                let Level { prefix, depth, .. } = &self.levels[level];
                let new = Level {
                    graph: inner,
                    prefix: format!("{prefix}{}:", node.id),
                    instance: Some((level, index)),
                    depth: depth + 1,
                };
                if new.depth > MAX_DEPTH || count + self.levels.len() > MAX_NODES {
                    return Err(WorkflowError::Nesting(node.id.clone()));
                }
                self.inner.insert((level, index), self.levels.len());
                self.levels.push(new);
            }
            level += 1;
        }
        Ok(())
    }

    /// Level inside a node, if it is an instance.
    pub(super) fn inside(&self, level: usize, node: usize) -> Option<usize> {
        self.inner.get(&(level, node)).copied()
    }

    pub(super) fn node(&self, level: usize, node: usize) -> &FileNode {
        &self.levels[level].graph.nodes[node]
    }

    /// Depth first: the nodes of an instance stand in its place, in file order.
    fn walk(&self) -> Vec<(usize, usize)> {
        let mut walked = Vec::new();
        let nodes_of = |level: usize| {
            let graph = &self.levels[level].graph;
            let mut nodes =
                if level == 0 { execution_order(graph) } else { (0..graph.nodes.len()).collect() };
            nodes.reverse();
            nodes.into_iter().map(move |node| (level, node))
        };
        let mut stack: Vec<_> = nodes_of(0).collect();
        while let Some((level, node)) = stack.pop() {
            match self.inside(level, node) {
                Some(inner) => stack.extend(nodes_of(inner)),
                None => walked.push((level, node)),
            }
        }
        walked
    }
}

/// The graph inside a node, if it is an instance of a subgraph or a group node.
fn inner_graph(file: &File, node: &FileNode, specs: &dyn Specs) -> Result<Option<Rc<Graph>>, WorkflowError> {
    if let Some(graph) = file.subgraphs.get(&node.kind) {
        return Ok(Some(graph.clone()));
    }
    let definition = group_name(&node.kind).and_then(|name| file.groups.get(name));
    definition.map(|definition| inside(node, definition, specs).map(Rc::new)).transpose()
}

/// Nodes without links into them in file order, then first in first out as their links are satisfied, then the rest.
fn execution_order(graph: &Graph) -> Vec<usize> {
    let links = |node: &FileNode| node.inputs.iter().filter_map(|input| input.link).count();
    let mut open: Vec<usize> = graph.nodes.iter().map(links).collect();
    let mut followers: Vec<Vec<(usize, i64, usize)>> = vec![Vec::new(); graph.nodes.len()];
    for (target, node) in graph.nodes.iter().enumerate() {
        for link in node.inputs.iter().filter_map(|input| input.link) {
            if let Some(l) = graph.links.get(&link)
                && let Origin::Node(origin) = l.origin
            {
                followers[origin].push((l.origin_slot, link, target));
            }
        }
    }
    let mut queue: VecDeque<usize> = (0..graph.nodes.len()).filter(|&node| open[node] == 0).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(node) = queue.pop_front() {
        order.push(node);
        followers[node].sort_unstable();
        for &(.., target) in &followers[node] {
            open[target] = open[target].saturating_sub(1);
            if open[target] == 0 {
                queue.push_back(target);
            }
        }
    }
    order.extend((0..graph.nodes.len()).filter(|&node| open[node] > 0));
    order
}
