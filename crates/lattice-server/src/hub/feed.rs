//! From the events of one prompt to the messages of its clients and of its history entry.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattice_graph::{Event, ProgressSnapshot};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::board::Audience;
use super::messages::{message, over, preview, preview_with_metadata, text};
use super::{Client, Hub, Outgoing};
use crate::record::Ending;

/// Prompts that touched no more nodes have every state of their progress sent.
const THIN_FROM: usize = 64;

/// Larger ones have a state sent when sending the one before took at most one part in so many of the time since.
const THIN_SHARE: u32 = 20;

/// Tells the clients of one prompt what happens and notes what its history entry will hold.
pub(crate) struct Feed<'a> {
    hub: &'a Hub,
    prompt_id: &'a str,
    owner: Option<&'a str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `[event, data]` pairs of the history entry.
    history: Vec<Json>,
    /// When the next state of a large prompt's progress may be sent.
    next_progress: Option<Instant>,
    /// A state that was passed over and is the latest one.
    passed_over: Option<ProgressSnapshot>,
}

/// Who is told of an event.
enum Listener {
    Owner(Arc<Client>),
    Everybody,
    Nobody,
}

impl<'a> Feed<'a> {
    /// For a prompt and the client that queued it.
    pub(crate) fn new(hub: &'a Hub, prompt_id: &'a str, owner: Option<&'a str>) -> Self {
        Self { hub, prompt_id, owner, state: Mutex::default() }
    }

    /// Passes an event on.
    pub(crate) fn event(&self, event: &Event) {
        let mut state = self.state.lock();
        match event {
            Event::ProgressState(snapshot) => return self.progress_state(&mut state, snapshot),
            Event::Text { node, text: content } => return self.hub.broadcast(text(node, content)),
            Event::ExecutionSuccess | Event::ExecutionError(_) | Event::ExecutionInterrupted { .. } => {
                self.flush(&mut state);
            }
            _ => {}
        }
        let Some((kind, data)) = event.message(self.prompt_id, now_millis()) else { return };
        self.hub.journal.write(kind, Some(self.prompt_id), &data);
        match self.listener(event) {
            Listener::Owner(client) => {
                for outgoing in self.messages(kind, &data, event, client.outbox.takes_metadata()) {
                    client.outbox.push(outgoing);
                }
            }
            Listener::Everybody if matches!(event, Event::Progress { preview: Some(_), .. }) => {
                for metadata in [true, false] {
                    let messages = self.messages(kind, &data, event, metadata);
                    self.hub.announce(messages.into_iter().map(|m| (m, Audience::Metadata(metadata))));
                }
            }
            Listener::Everybody => self.hub.broadcast(message(kind, &data)),
            Listener::Nobody => {}
        }
        if event.in_history() {
            state.history.push(json!([kind, data]));
        }
    }

    /// The history entry exists: tells the owner and all listeners so.
    pub(crate) fn over(&self, ending: Ending) {
        let data = json!({ "prompt_id": self.prompt_id, "outcome": ending.name() });
        self.hub.journal.write("finished", Some(self.prompt_id), &data);
        if let Some(owner) = self.owner.and_then(|owner| self.hub.client(owner)) {
            owner.outbox.push(over(self.prompt_id));
        }
    }

    /// The `messages` of the history entry.
    pub(crate) fn take_history(&self) -> Vec<Json> {
        std::mem::take(&mut self.state.lock().history)
    }

    /// The message of an event and, with progress, the picture: before it for clients that take metadata with it,
    /// after it for others.
    fn messages(&self, kind: &str, data: &Json, event: &Event, metadata: bool) -> Vec<Outgoing> {
        let outgoing = message(kind, data);
        match event {
            Event::Progress { entry, preview: Some(image) } if metadata => {
                vec![preview_with_metadata(image, entry, self.prompt_id), outgoing]
            }
            Event::Progress { preview: Some(image), .. } => vec![outgoing, preview(image)],
            _ => vec![outgoing],
        }
    }

    /// Who is told of an event.
    fn listener(&self, event: &Event) -> Listener {
        match self.owner {
            Some(owner) => self.hub.client(owner).map_or(Listener::Nobody, Listener::Owner),
            None if event.broadcast_without_owner() && !self.hub.is_empty() => Listener::Everybody,
            None => Listener::Nobody,
        }
    }

    /// Each state lists all nodes touched so far. Sent at every step, that is a message of megabytes per node where
    /// there are thousands; so states of large prompts that the next one outdates soon are passed over.
    fn progress_state(&self, state: &mut State, snapshot: &ProgressSnapshot) {
        let now = Instant::now();
        if snapshot.touched() > THIN_FROM && state.next_progress.is_some_and(|next| now < next) {
            state.passed_over = Some(snapshot.clone());
            return;
        }
        self.send_progress(snapshot);
        state.passed_over = None;
        state.next_progress = Some(now + Duration::from_millis(1) + now.elapsed() * THIN_SHARE);
    }

    /// Before the prompt ends, clients get the state it ends with.
    fn flush(&self, state: &mut State) {
        if let Some(snapshot) = state.passed_over.take() {
            self.send_progress(&snapshot);
        }
    }

    fn send_progress(&self, snapshot: &ProgressSnapshot) {
        let event = Event::ProgressState(snapshot.clone());
        let listener = self.listener(&event);
        if matches!(listener, Listener::Nobody) {
            return;
        }
        if let Some((kind, data)) = event.message(self.prompt_id, now_millis()) {
            let outgoing = message(kind, &data);
            match listener {
                Listener::Owner(client) => client.outbox.push(outgoing),
                _ => self.hub.broadcast(outgoing),
            }
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
