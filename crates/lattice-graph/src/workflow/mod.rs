//! Workflows as editors save them, and their conversion to prompts.
//!
//! An editor's file has nodes with widgets in a list, links with ids, nodes that exist only on screen (reroutes, notes,
//! primitives), graphs within graphs, and nodes switched off. A prompt has none of these.

mod convert;
mod flatten;
mod group;
mod links;
mod model;
mod text;
mod widgets;

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

pub use self::text::{LocalTime, SeededChoice};
use crate::{Extensions, NodeSpec, ObjectInfoError, Registry};

/// A file that is not a workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// A part has the wrong shape.
    #[error("not a workflow: {0}")]
    Malformed(String),
    /// A subgraph contains itself, or subgraphs are nested too deep or too often.
    #[error("node {0}: subgraphs are nested too deep, too often or in a circle")]
    Nesting(String),
}

/// Where the declarations of node classes come from.
pub trait Specs {
    /// The declaration of a class.
    fn spec(&self, class: &str) -> Option<&NodeSpec>;
}

impl Specs for Registry {
    fn spec(&self, class: &str) -> Option<&NodeSpec> {
        self.get(class).map(|node| node.spec())
    }
}

/// Declarations without the nodes, as an /object_info reply gives them.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(HashMap<String, NodeSpec>);

impl Catalogue {
    /// From an /object_info reply.
    ///
    /// # Errors
    /// If an entry declares no class.
    pub fn from_object_info(reply: &Map<String, Json>) -> Result<Self, ObjectInfoError> {
        let specs =
            reply.iter().map(|(class, entry)| Ok((class.clone(), NodeSpec::from_object_info(class, entry)?)));
        specs.collect::<Result<_, _>>().map(Self)
    }
}

impl Specs for Catalogue {
    fn spec(&self, class: &str) -> Option<&NodeSpec> {
        self.0.get(class)
    }
}

/// What a conversion needs beside the file.
pub struct Conversion<'a> {
    /// Declarations of the classes.
    pub specs: &'a dyn Specs,
    /// Services that lists of choices are asked from.
    pub extensions: &'a Extensions,
    /// Makes the choices of dynamic prompts: an index below the number given.
    pub choose: &'a mut dyn FnMut(usize) -> usize,
    /// Time for `%date:...%`.
    pub now: LocalTime,
}

/// Whether a file's JSON is a workflow (and not, say, a prompt).
pub fn is_workflow(json: &Json) -> bool {
    json.get("nodes").is_some_and(Json::is_array)
}

impl Conversion<'_> {
    /// The prompt of a workflow.
    ///
    /// # Errors
    /// If the file is no workflow. A workflow that makes no valid prompt is converted all the same: validation says
    /// what is wrong.
    pub fn convert(&mut self, workflow: &Json) -> Result<Map<String, Json>, WorkflowError> {
        let file = model::File::parse(workflow)?;
        let flat = flatten::Flat::new(&file, self.specs)?;
        Ok(convert::convert(&flat, self))
    }
}
