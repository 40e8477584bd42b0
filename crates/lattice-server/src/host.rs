//! What the server asks of the program it is part of.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use lattice_graph::{CacheStrategy, Extensions, Registry};

/// The program behind the server: its nodes and where its files lie.
pub trait Host: Send + Sync + 'static {
    /// The node classes.
    fn registry(&self) -> Arc<Registry>;

    /// What nodes are lent.
    fn extensions(&self) -> Extensions;

    /// How results are kept between prompts.
    fn cache(&self) -> CacheStrategy;

    /// Folders that clients read from and write to.
    fn roots(&self) -> Roots;

    /// Lets go of models that no stored result needs.
    fn free_models(&self);

    /// A prompt is about to run. `run` is the same for each try at the same queued prompt, and for no other; what an
    /// earlier try that was cut short has put into the output folder is to go.
    ///
    /// # Errors
    /// If that is not possible, for people.
    fn run_begins(&self, run: &str) -> Result<(), String>;

    /// The prompt has ended, well or not. What it has put into the output folder survives a power cut when this returns,
    /// if the queue does.
    ///
    /// # Errors
    /// If that is not so, for people.
    fn run_ended(&self) -> Result<(), String>;

    /// Kinds of models, in the order clients list them.
    fn model_kinds(&self) -> Vec<String>;

    /// Folders that models of a kind are searched in.
    fn model_folders(&self, kind: &str) -> Vec<PathBuf>;

    /// Names of the models of a kind, sorted, with `/` between folders.
    fn models(&self, kind: &str) -> Vec<String>;

    /// The file of a model, to be read from its beginning; None if there is none.
    fn open_model(&self, kind: &str, name: &str) -> Option<Box<dyn Read>>;

    /// The template that requests for pictures use where the user has none named `default` (JSON, see
    /// `docs/server.md`); None if there is no model that it could count on.
    fn image_template(&self) -> Option<&'static str>;

    /// Memory of the machine and of the process.
    fn memory(&self) -> Memory;
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What can still be taken.
    pub free: u64,
    /// What the process holds.
    pub resident: u64,
}

/// The folders that requests can reach. No file outside of them is read or written for a request.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Files given by users.
    pub input: PathBuf,
    /// Results to keep.
    pub output: PathBuf,
    /// Previews; emptied at each start.
    pub temp: PathBuf,
    /// The users' settings and workflows, and the queue.
    pub user: PathBuf,
}
