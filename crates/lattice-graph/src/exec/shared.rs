//! What all threads of a run share: where events go, progress, whether to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::call::{Calls, Gathered, call, lazy_names};
use crate::{
    CallContext, Event, EventSink, Extensions, Node, NodeError, NodeState, PreviewImage, ProgressEntry,
    ProgressSnapshot,
};

/// Asks a running prompt to stop; clones share the flag. A run clears it when it starts.
#[derive(Clone, Debug, Default)]
pub struct InterruptFlag(Arc<AtomicBool>);

impl InterruptFlag {
    /// Asks the running prompt to stop.
    pub fn interrupt(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes the wish back.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Shared<'a> {
    pub extensions: &'a Extensions,
    pub prompt: &'a Json,
    pub extra_data: &'a Json,
    pub sink: EventSink<'a>,
    pub interrupt: &'a InterruptFlag,
    /// The prompt has ended; what still runs beside it is to stop.
    pub over: AtomicBool,
    pub progress: Mutex<ProgressSnapshot>,
}

/// Names of a node in events.
#[derive(Clone)]
pub(super) struct Identity {
    pub id: String,
    pub display: String,
    pub parent: Option<String>,
    pub real: String,
}

/// A node about to be called.
pub(super) struct Task {
    pub who: Identity,
    pub class: Arc<dyn Node>,
    pub state: NodeState,
    pub dynamic_prompt: Option<Json>,
}

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.interrupt.is_set() || self.over.load(Ordering::Relaxed)
    }

    /// Notes and sends the progress of a node.
    pub(super) fn progress(
        &self,
        who: &Identity,
        value: f64,
        max: f64,
        state: &'static str,
    ) -> ProgressEntry {
        let entry = ProgressEntry {
            value,
            max,
            state,
            node_id: who.id.clone(),
            display_node_id: who.display.clone(),
            parent_node_id: who.parent.clone(),
            real_node_id: who.real.clone(),
        };
        // Sent under the lock, so that no client sees an older state after a newer one.
        let mut progress = self.progress.lock();
        progress.push(entry.clone());
        (self.sink)(Event::ProgressState(progress.clone()));
        entry
    }

    /// The node is done: as many steps as it said there were.
    pub(super) fn finished(&self, who: &Identity) {
        let max = self.progress.lock().entry(&who.id).map_or(1.0, |entry| entry.max);
        self.progress(who, max, max, "finished");
    }

    fn report(
        &self,
        who: &Identity,
        value: f64,
        max: f64,
        preview: Option<PreviewImage>,
    ) -> Result<(), NodeError> {
        if self.stopped() {
            return Err(NodeError::interrupt());
        }
        let entry = self.progress(who, value, max, "running");
        (self.sink)(Event::Progress { entry, preview });
        Ok(())
    }

    /// Makes all calls of a node.
    pub(super) fn perform(&self, task: &Task, inputs: Gathered) -> Result<Calls, NodeError> {
        self.with_context(task, |context| call(&*task.class, inputs, context))
    }

    /// Asks a node for the lazy inputs it needs.
    pub(super) fn ask_lazy(
        &self,
        task: &Task,
        inputs: &Gathered,
    ) -> Result<indexmap::IndexSet<String>, NodeError> {
        self.with_context(task, |context| lazy_names(&*task.class, inputs, context))
    }

    fn with_context<R>(
        &self,
        task: &Task,
        f: impl for<'c> FnOnce(&'c (dyn Fn(usize) -> CallContext<'c> + 'c)) -> R,
    ) -> R {
        let who = &task.who;
        let report = |value, max, preview| self.report(who, value, max, preview);
        let send_text = |text| (self.sink)(Event::Text { node: who.id.clone(), text });
        let interrupted = || self.stopped();
        let context = |call_index| CallContext {
            node_id: &who.id,
            call_index,
            extensions: self.extensions,
            prompt: self.prompt,
            dynamic_prompt: task.dynamic_prompt.as_ref(),
            extra_data: self.extra_data,
            state: &task.state,
            report: &report,
            send_text: &send_text,
            interrupted: &interrupted,
        };
        f(&context)
    }
}
