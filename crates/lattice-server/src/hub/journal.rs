//! What happened last, for listeners that read at their own pace.
//!
//! Events are written down once, however many listen, and the oldest go when there are too many. A listener is a place in
//! this list: one that reads slowly costs nothing, and one whose place is gone is told so. One that comes back with the
//! id of the last event that it has seen goes on after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// Most events that are kept.
const MAX_EVENTS: usize = 8192;

/// Most bytes of their data; a single larger event is kept all the same.
const MAX_BYTES: usize = 8 << 20;

/// An event.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u64,
    /// What kind it is.
    pub(crate) kind: &'static str,
    /// The prompt that it is about, if it is about one.
    prompt_id: Option<String>,
    /// A JSON document.
    pub(crate) data: String,
}

/// The events.
pub(crate) struct Journal {
    /// Distinguishes the events of this process from those of others.
    epoch: String,
    state: Mutex<State>,
    /// Number of the next event, and whether there will be one.
    next: watch::Sender<Next>,
    listeners: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Next {
    number: u64,
    closed: bool,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            epoch: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            state: Mutex::default(),
            next: watch::Sender::new(Next { number: 1, closed: false }),
            listeners: AtomicUsize::new(0),
        }
    }
}

impl Journal {
    /// Writes an event down.
    pub(crate) fn write(&self, kind: &'static str, prompt_id: Option<&str>, data: &impl Serialize) {
        let data = match serde_json::to_string(data) {
            Ok(data) => data,
            Err(e) => return tracing::error!("cannot tell of {kind}: {e}"),
        };
        let mut state = self.state.lock();
        let number = self.next.borrow().number;
        state.bytes += data.len();
        state.entries.push_back(Arc::new(Entry { number, kind, prompt_id: prompt_id.map(Into::into), data }));
        while state.entries.len() > MAX_EVENTS || (state.bytes > MAX_BYTES && state.entries.len() > 1) {
            if let Some(gone) = state.entries.pop_front() {
                state.bytes -= gone.data.len();
            }
        }
        // While the list is locked, so that numbers in it and this one agree.
        self.next.send_modify(|next| next.number = number + 1);
    }

    /// No more events: listeners end once they have read what there is.
    pub(crate) fn close(&self) {
        self.next.send_modify(|next| next.closed = true);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    /// The id of an event by its number, as listeners know it.
    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// The number of an event by its id; None if it is none of this process.
    fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.rsplit_once('-')?;
        if epoch == self.epoch { number.parse().ok() } else { None }
    }

    /// The first event from a number on, if there is one; or that those there were are gone.
    fn from(&self, number: u64) -> Found {
        let state = self.state.lock();
        let Some(first) = state.entries.front() else { return Found::Nothing };
        if number < first.number {
            return Found::Gone;
        }
        // Numbers have no gaps.
        match state.entries.get((number - first.number) as usize) {
            Some(entry) => Found::Entry(entry.clone()),
            None => Found::Nothing,
        }
    }
}

enum Found {
    Entry(Arc<Entry>),
    Gone,
    Nothing,
}

/// What a listener hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Arc<Entry>),
    /// There may have been events that it will not hear of: it is to ask how things stand.
    Resync(&'static str),
}

/// One who listens.
pub(crate) struct Listener {
    journal: Arc<Journal>,
    next: watch::Receiver<Next>,
    /// Number of the event to hear next.
    at: u64,
    /// Only events of this prompt.
    prompt_id: Option<String>,
    resync: Option<&'static str>,
}

impl Listener {
    /// Listens from now on, or from the event after one of that id. `prompt_id`: only to events of that prompt.
    pub(crate) fn new(journal: Arc<Journal>, last: Option<&str>, prompt_id: Option<String>) -> Self {
        let next = journal.next.subscribe();
        let now = next.borrow().number;
        let known = last.and_then(|id| journal.number(id)).filter(|&number| number < now);
        let (at, resync) = match (last, known) {
            (_, Some(number)) => (number + 1, None),
            (Some(_), None) => (now, Some("unknown_id")),
            (None, None) => (now, Some("connected")),
        };
        journal.listeners.fetch_add(1, Ordering::Relaxed);
        Self { journal, next, at, prompt_id, resync }
    }

    /// The next event; None if there will be none any more.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        if let Some(reason) = self.resync.take() {
            return Some(Heard::Resync(reason));
        }
        loop {
            let latest = *self.next.borrow_and_update();
            match self.journal.from(self.at) {
                Found::Entry(entry) => {
                    self.at += 1;
                    if self.prompt_id.is_none() || self.prompt_id == entry.prompt_id {
                        return Some(Heard::Event(entry));
                    }
                }
                Found::Gone => {
                    // Before anybody looks how things stand, so that nothing falls between.
                    self.at = latest.number;
                    return Some(Heard::Resync("lagged"));
                }
                Found::Nothing if latest.closed => return None,
                // The journal outlives its listeners.
                Found::Nothing => self.next.changed().await.ok()?,
            }
        }
    }

    /// Id of the event heard last.
    pub(crate) fn last_id(&self) -> String {
        self.journal.id(self.at - 1)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.journal.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn numbers(listener: &mut Listener, count: usize) -> Vec<u64> {
        let mut heard = Vec::new();
        while heard.len() < count {
            match listener.next().await.unwrap() {
                Heard::Event(entry) => heard.push(entry.number),
                Heard::Resync(reason) => panic!("{reason}"),
            }
        }
        heard
    }

    #[tokio::test]
    async fn a_listener_goes_on_where_it_was() {
        let journal = Arc::new(Journal::default());
        journal.write("a", None, &1);
        let mut listener = Listener::new(journal.clone(), None, None);
        assert!(matches!(listener.next().await, Some(Heard::Resync("connected"))));
        for i in 0..5 {
            journal.write("a", Some(if i % 2 == 0 { "even" } else { "odd" }), &i);
        }
        assert_eq!(numbers(&mut listener, 2).await, [2, 3]);
        let id = listener.last_id();
        assert_eq!(journal.listeners(), 1);
        drop(listener);
        assert_eq!(journal.listeners(), 0);
        let mut again = Listener::new(journal.clone(), Some(&id), None);
        assert_eq!(numbers(&mut again, 3).await, [4, 5, 6]);
        let mut even = Listener::new(journal.clone(), Some(&id), Some("even".into()));
        assert_eq!(numbers(&mut even, 2).await, [4, 6]);
        journal.close();
        assert!(again.next().await.is_none());
        for unknown in ["x", "other-3", &journal.id(100)] {
            let mut listener = Listener::new(journal.clone(), Some(unknown), None);
            assert!(matches!(listener.next().await, Some(Heard::Resync("unknown_id"))), "{unknown}");
        }
    }

    #[tokio::test]
    async fn a_listener_that_lags_is_told_and_costs_nothing() {
        let journal = Arc::new(Journal::default());
        let mut listener = Listener::new(journal.clone(), None, None);
        listener.next().await;
        journal.write("first", None, &0);
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            journal.write("long", None, &long);
            assert!(journal.state.lock().bytes <= MAX_BYTES);
        }
        assert!(matches!(listener.next().await, Some(Heard::Resync("lagged"))));
        journal.write("after", None, &1);
        assert_eq!(numbers(&mut listener, 1).await, [22]);
        for i in 0..2 * MAX_EVENTS {
            journal.write("short", None, &i);
        }
        assert_eq!(journal.state.lock().entries.len(), MAX_EVENTS);
        assert!(matches!(listener.next().await, Some(Heard::Resync("lagged"))));
        journal.write("huge", None, &"x".repeat(2 * MAX_BYTES));
        assert!(matches!(listener.next().await, Some(Heard::Event(entry)) if entry.kind == "huge"));
    }
}
