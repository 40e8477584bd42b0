//! Which node runs next.

use std::collections::{BTreeSet, HashMap, HashSet};

/// Nodes that wait for their turn, in the order they were added, and what blocks them.
#[derive(Default)]
pub(super) struct Pending {
    nodes: HashMap<usize, Waiting>,
    /// By urgency the nodes that could run: (place in the list, node).
    ready: [BTreeSet<(u64, usize)>; 4],
    added: u64,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts, which the urgency combines
struct Waiting {
    place: u64,
    /// It is an output node.
    output: bool,
    /// It is an output node or runs beside others.
    first: bool,
    /// It blocks an output node.
    blocks_output: bool,
    /// It blocks a node that blocks an output node.
    blocks_blocker: bool,
    blockers: HashSet<usize>,
    blocks: Vec<usize>,
    /// It is running, or set aside.
    away: bool,
}

impl Waiting {
    /// The order of choice: outputs and async nodes, what blocks an output, what blocks such a blocker, the rest.
    fn urgency(&self) -> usize {
        [self.first, self.blocks_output, self.blocks_blocker].iter().position(|&is| is).unwrap_or(3)
    }
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn contains(&self, node: usize) -> bool {
        self.nodes.contains_key(&node)
    }

    pub(super) fn add(&mut self, node: usize, output: bool, is_async: bool) {
        let place = self.added;
        self.added += 1;
        self.nodes.insert(node, Waiting { place, output, first: output || is_async, ..Waiting::default() });
        self.list(node);
    }

    /// `target` cannot run before `source`, which is pending too.
    pub(super) fn block(&mut self, source: usize, target: usize) {
        self.unlist(target);
        let Some(waiting) = self.nodes.get_mut(&target) else { return };
        let is_new = waiting.blockers.insert(source);
        let (output, blocker) = (waiting.output, waiting.blocks_output);
        self.list(target);
        if is_new {
            self.update(source, |waiting| {
                waiting.blocks.push(target);
                waiting.blocks_blocker |= blocker;
            });
            if output {
                self.mark_blocks_output(source);
            }
        }
    }

    fn mark_blocks_output(&mut self, node: usize) {
        if self.nodes.get(&node).is_none_or(|waiting| waiting.blocks_output) {
            return;
        }
        self.update(node, |waiting| waiting.blocks_output = true);
        let blockers =
            self.nodes.get(&node).map(|waiting| waiting.blockers.iter().copied().collect::<Vec<_>>());
        for blocker in blockers.unwrap_or_default() {
            self.update(blocker, |waiting| waiting.blocks_blocker = true);
        }
    }

    fn update(&mut self, node: usize, change: impl FnOnce(&mut Waiting)) {
        self.unlist(node);
        if let Some(waiting) = self.nodes.get_mut(&node) {
            change(waiting);
        }
        self.list(node);
    }

    fn list(&mut self, node: usize) {
        if let Some(waiting) = self.nodes.get(&node).filter(|w| !w.away && w.blockers.is_empty()) {
            self.ready[waiting.urgency()].insert((waiting.place, node));
        }
    }

    fn unlist(&mut self, node: usize) {
        if let Some(waiting) = self.nodes.get(&node) {
            self.ready[waiting.urgency()].remove(&(waiting.place, node));
        }
    }

    /// The node to run next; it is away until [`Self::back`] or [`Self::complete`].
    pub(super) fn next(&mut self) -> Option<usize> {
        let (_, node) = self.ready.iter_mut().find_map(BTreeSet::pop_first)?;
        if let Some(waiting) = self.nodes.get_mut(&node) {
            waiting.away = true;
        }
        Some(node)
    }

    /// The node waits for its turn again.
    pub(super) fn back(&mut self, node: usize) {
        self.update(node, |waiting| waiting.away = false);
    }

    /// The node has run.
    pub(super) fn complete(&mut self, node: usize) {
        self.unlist(node);
        let Some(waiting) = self.nodes.remove(&node) else { return };
        for target in waiting.blocks {
            self.update(target, |waiting| {
                waiting.blockers.remove(&node);
            });
        }
    }

    /// A cycle among the pending nodes, which are all blocked.
    pub(super) fn cycle(&self) -> Vec<usize> {
        let mut node = self.nodes.iter().min_by_key(|(_, waiting)| waiting.place).map(|(&node, _)| node);
        let (mut path, mut place_in_path) = (Vec::new(), HashMap::new());
        while let Some(current) = node {
            if let Some(&start) = place_in_path.get(&current) {
                return path.split_off(start);
            }
            place_in_path.insert(current, path.len());
            path.push(current);
            node = self.nodes.get(&current).and_then(|waiting| waiting.blockers.iter().min().copied());
        }
        path
    }
}
