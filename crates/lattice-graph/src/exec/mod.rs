//! Execution of accepted prompts.

mod call;
mod graph;
mod order;
mod run;
mod shared;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::Value as Json;

use self::graph::Graph;
use self::run::{Run, Stop};
pub use self::shared::InterruptFlag;
use self::shared::Shared;
use crate::cache::Cache;
use crate::{
    Accepted, CacheStrategy, Event, EventSink, Extensions, NodeFailure, ProgressSnapshot, Registry, UiOutput,
};

/// Runs prompts one after the other and keeps results between them.
pub struct Executor {
    registry: Arc<Registry>,
    extensions: Extensions,
    cache: Cache,
    /// Number for the next key that must match nothing.
    nonce: u64,
}

/// How a prompt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunStatus {
    /// All outputs are done.
    Success,
    /// A node failed.
    Error(Box<NodeFailure>),
    /// The user stopped it.
    Interrupted,
}

impl RunStatus {
    /// `status_str` of the history entry.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error(_) | Self::Interrupted => "error",
        }
    }

    /// `completed` of the history entry.
    pub fn completed(&self) -> bool {
        *self == Self::Success
    }
}

/// What remains of a run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// How it ended.
    pub status: RunStatus,
    /// UI outputs by node id, those from earlier runs that were still stored among them.
    pub outputs: IndexMap<String, UiOutput>,
}

impl Executor {
    /// With nothing stored.
    pub fn new(registry: Arc<Registry>, extensions: Extensions, strategy: CacheStrategy) -> Self {
        Self { registry, extensions, cache: Cache::new(strategy), nonce: 0 }
    }

    /// The classes it knows.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Forgets all results and node states.
    pub fn clear(&mut self) {
        self.cache.clear();
    }

    /// Runs a prompt to its end. Events go to `sink` as they happen, from this thread or those of async nodes;
    /// `interrupt` is cleared first and then looked at before each call and at each progress report.
    pub fn run(
        &mut self,
        accepted: &Accepted,
        extra_data: &Json,
        sink: EventSink<'_>,
        interrupt: &InterruptFlag,
    ) -> RunResult {
        interrupt.clear();
        sink(Event::ExecutionStart);
        let graph = Graph::new(&accepted.prompt, &self.registry, &self.extensions, self.nonce);
        let keys: HashSet<_> = graph.nodes.iter().map(|node| node.key).collect();
        let classes: HashMap<_, _> =
            graph.nodes.iter().map(|node| (node.id.as_str(), node.spec().name.as_str())).collect();
        self.cache.begin(&keys, &classes);
        let cached = graph.nodes.iter().filter(|node| self.cache.contains(&node.key));
        sink(Event::ExecutionCached { nodes: cached.map(|node| node.id.clone()).collect() });
        let shared = Shared {
            extensions: &self.extensions,
            prompt: &accepted.prompt,
            extra_data,
            sink,
            interrupt,
            over: AtomicBool::new(false),
            progress: Mutex::new(ProgressSnapshot::default()),
        };
        let (stop, outputs, nonce) = std::thread::scope(|scope| {
            let mut run = Run::new(scope, &shared, &self.registry, &mut self.cache, graph);
            let stop = run.execute(&accepted.outputs).err();
            shared.over.store(true, std::sync::atomic::Ordering::Relaxed);
            (stop, run.ui_outputs(), run.next_nonce())
        });
        self.nonce = nonce;
        let status = match stop {
            None => {
                sink(Event::ExecutionSuccess);
                RunStatus::Success
            }
            Some(Stop::Failed(failure)) => {
                sink(Event::ExecutionError(NodeFailure::clone(&failure)));
                RunStatus::Error(failure)
            }
            Some(Stop::Interrupted(event)) => {
                sink(*event);
                RunStatus::Interrupted
            }
        };
        RunResult { status, outputs }
    }
}
