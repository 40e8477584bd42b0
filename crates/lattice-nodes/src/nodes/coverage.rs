//! Which of the reference's built-in nodes exist here.

use indexmap::IndexMap;

use super::registry;

/// Category and class name of every built-in node of the reference (ComfyUI 0.3.64), a line each.
const REFERENCE: &str = include_str!("../../data/reference_nodes.tsv");

/// Nodes of one category of the reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Nodes that exist.
    pub present: Vec<&'static str>,
    /// Nodes that do not.
    pub missing: Vec<&'static str>,
}

/// The reference's categories, each with its nodes.
pub fn coverage() -> IndexMap<&'static str, Coverage> {
    let ours = registry();
    let mut categories: IndexMap<&'static str, Coverage> = IndexMap::new();
    for (category, name) in REFERENCE.lines().filter_map(|line| line.split_once('\t')) {
        let category = categories.entry(category).or_default();
        if ours.get(name).is_some() { category.present.push(name) } else { category.missing.push(name) }
    }
    categories.sort_unstable_keys();
    categories
}
