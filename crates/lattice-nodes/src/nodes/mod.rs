//! The nodes, one module per category.

mod coverage;
mod image;

use std::sync::Arc;

use indexmap::IndexMap;
use lattice_graph::Node;

pub use coverage::{Coverage, coverage};

/// Largest side of a picture that widgets offer.
pub(crate) const MAX_RESOLUTION: usize = 16384;

/// All nodes by class name.
pub fn registry() -> IndexMap<String, Arc<dyn Node>> {
    let categories = [image::nodes()];
    categories.into_iter().flatten().map(|node| (node.spec().name.clone(), node)).collect()
}
