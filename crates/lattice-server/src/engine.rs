//! The thread that executes prompts, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lattice_graph::{Accepted, Event, Executor, InterruptFlag, NodeErrors, RunResult, RunStatus};
use parking_lot::{Condvar, Mutex};
use serde_json::Value as Json;

use crate::Host;
use crate::hub::{Feed, Hub};
use crate::metrics::Metrics;
use crate::record::{self, Ending, Outcome};
use crate::store::{QueueItem, Store, StoreError};

/// How long to wait before trying again what the database refused.
const RETRY: Duration = Duration::from_secs(1);

/// Ended prompts after which the history is cut to its length.
const TRIM_EVERY: usize = 64;

/// What requests may ask of the engine.
#[derive(Default)]
pub(crate) struct Engine {
    wishes: Mutex<Wishes>,
    wake: Condvar,
    running: Mutex<Option<Running>>,
    interrupt: InterruptFlag,
    /// The thread has ended.
    ended: AtomicBool,
}

#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "wishes come in any combination")]
struct Wishes {
    /// The queue may hold something new.
    look: bool,
    unload_models: bool,
    free_memory: bool,
    /// No further prompt is to be started.
    stop: bool,
    /// The running prompt is to be put back into the queue.
    abandon: bool,
}

/// The prompt that is executed now.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Its identity in the store.
    pub(crate) seq: i64,
    pub(crate) prompt_id: String,
    pub(crate) client_id: Option<String>,
    /// Node that runs, as shown to the user.
    pub(crate) node: Option<String>,
}

impl Engine {
    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.wish(|wishes| wishes.look = true);
    }

    /// Between prompts: lets go of models, or of models and all stored results.
    pub(crate) fn free(&self, unload_models: bool, free_memory: bool) {
        self.wish(|wishes| {
            wishes.unload_models |= unload_models;
            wishes.free_memory |= free_memory;
        });
    }

    /// Ends the thread after the running prompt.
    pub(crate) fn stop(&self) {
        self.wish(|wishes| wishes.stop = true);
    }

    /// Ends the thread now; the running prompt goes back into the queue.
    pub(crate) fn abandon(&self) {
        self.wish(|wishes| (wishes.stop, wishes.abandon) = (true, true));
        self.interrupt(None);
    }

    /// Ends the running prompt; with an id only if that one runs.
    pub(crate) fn interrupt(&self, prompt_id: Option<&str>) {
        let running = self.running.lock();
        let wanted = |running: &Running| prompt_id.is_none_or(|prompt_id| running.prompt_id == prompt_id);
        if running.as_ref().is_some_and(wanted) {
            self.interrupt.interrupt();
        }
    }

    /// The prompt that is executed now.
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    /// Whether prompts can be executed no more.
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn wish(&self, f: impl FnOnce(&mut Wishes)) {
        f(&mut self.wishes.lock());
        self.wake.notify_one();
    }

    /// Takes the wishes; `wait`: once there are some.
    fn wishes(&self, wait: bool) -> Wishes {
        let mut wishes = self.wishes.lock();
        while wait && !(wishes.look || wishes.stop || wishes.unload_models || wishes.free_memory) {
            self.wake.wait(&mut wishes);
        }
        let taken = *wishes;
        *wishes = Wishes { stop: taken.stop, abandon: taken.abandon, ..Wishes::default() };
        taken
    }

    fn final_wishes(&self) -> Wishes {
        *self.wishes.lock()
    }
}

/// What the thread works with.
pub(crate) struct Worker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) executor: Executor,
    pub(crate) metrics: Arc<Metrics>,
    /// Most entries of the history.
    pub(crate) history_limit: usize,
}

/// Notes that the thread has ended, by a panic too.
struct Ended(Arc<Engine>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Worker {
    /// Executes prompts until asked to stop.
    pub(crate) fn run(mut self) {
        let _ended = Ended(self.engine.clone());
        let mut idle = false;
        let mut ended = 0;
        loop {
            let wishes = self.engine.wishes(idle);
            if wishes.stop {
                return;
            }
            self.free(wishes);
            let taken = self.store.take_next();
            idle = matches!(taken, Ok(None));
            match taken {
                Ok(Some(item)) => {
                    self.execute(&item);
                    ended += 1;
                    if ended % TRIM_EVERY == 0 {
                        self.trim();
                    }
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::error!("cannot take a prompt from the queue: {e}");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    fn free(&mut self, wishes: Wishes) {
        if wishes.unload_models || wishes.free_memory {
            self.host.free_models();
        }
        if wishes.free_memory {
            self.executor.clear();
        }
    }

    fn trim(&self) {
        if let Err(e) = self.store.trim_history(self.history_limit) {
            tracing::warn!("cannot shorten the history: {e}");
        }
    }

    fn execute(&mut self, item: &QueueItem) {
        let id = &item.prompt_id;
        let owner = item.client_id.as_deref();
        *self.engine.running.lock() = Some(Running {
            seq: item.seq,
            prompt_id: id.clone(),
            client_id: item.client_id.clone(),
            node: None,
        });
        let hub = self.hub.clone();
        let feed = Feed::new(&hub, id, owner);
        let started = Instant::now();
        // A queue that was made anew counts from 1 again, hence the id.
        let begun = self.host.run_begins(&format!("{} {id}", item.seq));
        let result = begun.and_then(|()| self.call(item, &feed));
        if let Err(e) = self.host.run_ended() {
            tracing::error!("what prompt {id} has saved may not survive a power cut: {e}");
        }
        *self.engine.running.lock() = None;
        let abandoned = matches!(&result, Ok(result) if result.status == RunStatus::Interrupted)
            && self.engine.final_wishes().abandon;
        if abandoned {
            tracing::info!("prompt {id} goes back into the queue");
            self.insist("put a prompt back", || self.store.put_back(item.seq));
            return;
        }
        let ending = Ending::from(&result);
        self.metrics.ended(ending, started.elapsed());
        log_end(id, &result, started.elapsed());
        let outcome = Outcome { result, messages: feed.take_history() };
        match record::entry(item, outcome) {
            Ok(entry) => {
                self.insist("record the end of a prompt", || self.store.finish(item.seq, entry.clone()));
            }
            Err(e) => tracing::error!("cannot record the end of prompt {id}: {e}"),
        }
        feed.over(ending);
    }

    /// Has the prompt executed. A prompt that this program cannot execute (another version of it has queued it) is
    /// told why.
    fn call(&mut self, item: &QueueItem, feed: &Feed<'_>) -> Result<RunResult, String> {
        let prompt: Json = serde_json::from_str(item.prompt.get()).map_err(|e| e.to_string())?;
        let extra_data: Json = serde_json::from_str(item.extra_data.get()).map_err(|e| e.to_string())?;
        if let Some(class) = self.unknown_class(&prompt) {
            return Err(format!("There is no node class {class}."));
        }
        let accepted = Accepted { prompt, outputs: item.outputs.clone(), node_errors: NodeErrors::default() };
        let sink = |event: Event| {
            if let Event::Executing { display_node, .. } = &event
                && let Some(running) = &mut *self.engine.running.lock()
            {
                running.node = Some(display_node.clone());
            }
            self.metrics.event(&event);
            feed.event(&event);
        };
        Ok(self.executor.run(&accepted, &extra_data, &sink, &self.engine.interrupt))
    }

    fn unknown_class(&self, prompt: &Json) -> Option<String> {
        let registry = self.executor.registry();
        let mut classes = prompt.as_object().into_iter().flatten().map(|(_, node)| &node["class_type"]);
        classes
            .find(|class| class.as_str().is_none_or(|class| registry.get(class).is_none()))
            .map(ToString::to_string)
    }

    /// Tries until the database takes it: what has been executed must not be lost, or it would be executed again.
    fn insist(&self, what: &str, f: impl Fn() -> Result<(), StoreError>) {
        while let Err(e) = f() {
            tracing::error!("cannot {what}: {e}");
            if self.engine.final_wishes().abandon {
                return;
            }
            std::thread::sleep(RETRY);
        }
    }
}

fn log_end(id: &str, result: &Result<RunResult, String>, took: Duration) {
    match result.as_ref().map(|result| &result.status) {
        Ok(RunStatus::Success) => tracing::info!("prompt {id} executed in {:.2} seconds", took.as_secs_f64()),
        Ok(RunStatus::Interrupted) => tracing::info!("prompt {id} interrupted"),
        Ok(RunStatus::Error(failure)) => tracing::warn!(
            "prompt {id}: node {} ({}): {}",
            failure.node_id,
            failure.node_type,
            failure.exception_message.trim_end()
        ),
        Err(reason) => tracing::warn!("prompt {id} cannot be executed: {reason}"),
    }
}
