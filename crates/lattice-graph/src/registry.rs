//! The node classes a program knows.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::{Extensions, Node};

/// Node classes by name, in the order they were added.
#[derive(Clone, Default)]
pub struct Registry {
    nodes: IndexMap<String, Arc<dyn Node>>,
}

impl Registry {
    /// Adds a class; replaces one of the same name.
    pub fn insert(&mut self, node: impl Node + 'static) {
        self.insert_shared(Arc::new(node));
    }

    /// Adds a class that is shared with others.
    pub fn insert_shared(&mut self, node: Arc<dyn Node>) {
        self.nodes.insert(node.spec().name.clone(), node);
    }

    /// A class by name.
    pub fn get(&self, class: &str) -> Option<&Arc<dyn Node>> {
        self.nodes.get(class)
    }

    /// All classes with their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Arc<dyn Node>)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The /object_info object of all classes.
    pub fn object_info(&self, extensions: &Extensions) -> Map<String, Json> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.spec().object_info(extensions))).collect()
    }

    /// The /object_info object of one class: one key, or none if the class is unknown.
    pub fn object_info_of(&self, class: &str, extensions: &Extensions) -> Map<String, Json> {
        self.nodes
            .get(class)
            .map(|node| (class.to_owned(), node.spec().object_info(extensions)))
            .into_iter()
            .collect()
    }
}

impl Extend<Arc<dyn Node>> for Registry {
    fn extend<T: IntoIterator<Item = Arc<dyn Node>>>(&mut self, nodes: T) {
        for node in nodes {
            self.insert_shared(node);
        }
    }
}

impl FromIterator<Arc<dyn Node>> for Registry {
    fn from_iter<T: IntoIterator<Item = Arc<dyn Node>>>(nodes: T) -> Self {
        let mut registry = Self::default();
        registry.extend(nodes);
        registry
    }
}
