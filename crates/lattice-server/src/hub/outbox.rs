//! Messages on their way to one client, never more than a bounded amount of them: its own, and between them what
//! everybody is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::ws::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::board::{Board, Found};

/// Most messages that wait for a client.
const MAX_MESSAGES: usize = 32_768;

/// A client for which so many notices wait is behind.
const BEHIND: u64 = 16;

/// Most bytes that wait for a client; a single larger message still passes.
const MAX_BYTES: usize = 64 << 20;

/// Most messages that survive an overflow.
const MAX_KEPT: usize = 1024;

/// A message to a client.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The frame to send.
    pub(crate) message: Message,
    pub(crate) kind: Kind,
}

impl Outgoing {
    /// Bytes of its content.
    pub(super) fn size(&self) -> usize {
        match &self.message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// What becomes of a message that a client does not read in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is lost when too much waits.
    Event,
    /// How long the queue is: the next one may take its place.
    Status,
    /// Tells that a prompt has ended: stays when the rest is lost.
    End,
}

/// What a client gets next.
#[derive(Debug)]
pub(crate) enum Next {
    Message(Message),
    /// Messages were dropped: the client is to be told how things stand now.
    Resync,
    /// The server hangs up.
    Close,
}

/// The queue between the engine, which never waits, and a client, which may not read.
pub(crate) struct Outbox {
    board: Arc<Board>,
    /// The client takes previews with metadata.
    metadata: AtomicBool,
    state: Mutex<State>,
    ready: Notify,
}

struct State {
    /// Messages to this client alone, each with the number of the notice that it comes before.
    own: VecDeque<(Waiting, u64)>,
    /// Bytes of these.
    bytes: usize,
    /// Number of the notice to read next.
    at: u64,
    /// Number of the first notice that is not for this client any more.
    until: u64,
    closed: bool,
}

enum Waiting {
    Message(Outgoing),
    Resync,
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(outgoing) => outgoing.size(),
            Self::Resync => 0,
        }
    }
}

impl Outbox {
    /// For a client that is told what is written on the board from now on, after what `first` makes.
    pub(super) fn new<I>(board: Arc<Board>, first: impl FnOnce() -> I) -> Self
    where
        I: IntoIterator<Item = Outgoing>,
    {
        // Before the first messages are made: what changes meanwhile is told after them.
        let at = board.next();
        let own: VecDeque<_> = first().into_iter().map(|outgoing| (Waiting::Message(outgoing), at)).collect();
        let bytes = own.iter().map(|(waiting, _)| waiting.bytes()).sum();
        let state = Mutex::new(State { own, bytes, at, until: u64::MAX, closed: false });
        Self { board, metadata: AtomicBool::new(false), state, ready: Notify::new() }
    }

    /// Whether the client takes previews with metadata.
    pub(super) fn takes_metadata(&self) -> bool {
        self.metadata.load(Ordering::Relaxed)
    }

    pub(super) fn take_metadata(&self, takes: bool) {
        self.metadata.store(takes, Ordering::Relaxed);
    }

    /// Adds a message, after all notices so far. If too much waits, all goes but what tells the end of a prompt, and
    /// the client will be told how things stand.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let next = self.board.next();
        let full = state.own.len() >= MAX_MESSAGES
            || (!state.own.is_empty() && state.bytes + outgoing.size() > MAX_BYTES);
        if full {
            state.overflow(next);
        }
        state.bytes += outgoing.size();
        state.own.push_back((Waiting::Message(outgoing), next));
        self.ready.notify_one();
    }

    /// There may be notices.
    pub(super) fn wake(&self) {
        self.ready.notify_one();
    }

    /// The client is told nothing more of what is written on the board.
    pub(super) fn silence(&self) {
        self.state.lock().until = self.board.next();
        self.wake();
    }

    /// Ends the connection once what waits has been sent.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_one();
    }

    /// The next message, if one waits. A client that is behind gets the last one of several lengths of the queue in a
    /// row.
    pub(crate) fn ready(&self) -> Option<Next> {
        let mut state = self.state.lock();
        let end = state.own.front().map_or(state.until, |(_, before)| state.until.min(*before));
        let brief = self.board.next().saturating_sub(state.at) >= BEHIND;
        let found = if state.at < end {
            self.board.read(&mut state.at, end, self.takes_metadata(), brief)
        } else {
            Found::Nothing
        };
        match found {
            Found::Notice(message) => Some(Next::Message(message)),
            Found::Gone => Some(Next::Resync),
            Found::Nothing => state.pop(),
        }
    }

    /// Waits for the next message.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.ready() {
                return next;
            }
            self.ready.notified().await;
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Next> {
        let Some((waiting, _)) = self.own.pop_front() else {
            return self.closed.then_some(Next::Close);
        };
        self.bytes -= waiting.bytes();
        Some(match waiting {
            Waiting::Message(outgoing) => Next::Message(outgoing.message),
            Waiting::Resync => Next::Resync,
        })
    }

    /// Drops what waits, notices before number `next` too.
    fn overflow(&mut self, next: u64) {
        let end =
            |waiting: &Waiting| matches!(waiting, Waiting::Message(outgoing) if outgoing.kind == Kind::End);
        self.own.retain(|(waiting, _)| end(waiting));
        let surplus = self.own.len().saturating_sub(MAX_KEPT);
        self.own.drain(..surplus);
        self.own.push_back((Waiting::Resync, next));
        self.bytes = self.own.iter().map(|(waiting, _)| waiting.bytes()).sum();
        self.at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::board::Audience;

    fn text(text: &str, kind: Kind) -> Outgoing {
        Outgoing { message: Message::Text(text.into()), kind }
    }

    fn outbox() -> Outbox {
        Outbox::new(Arc::default(), || None)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_costs_a_bounded_amount() {
        let outbox = outbox();
        let long = "x".repeat(1 << 20);
        for i in 0..1000 {
            outbox.push(text(&long, Kind::Event));
            outbox.push(text(&format!("end {i}"), Kind::End));
            assert!(outbox.state.lock().bytes <= MAX_BYTES);
        }
        let (mut ends, mut resyncs) = (0, 0);
        outbox.close();
        loop {
            match outbox.next().await {
                Next::Message(Message::Text(text)) => ends += usize::from(text.starts_with("end")),
                Next::Message(_) => unreachable!(),
                Next::Resync => resyncs += 1,
                Next::Close => break,
            }
        }
        assert_eq!((ends, resyncs), (1000, 1));
    }

    #[test]
    fn lengths_of_the_queue_do_not_pile_up() {
        let outbox = Outbox::new(Arc::default(), || Some(text("hello", Kind::Event)));
        let count = |numbers: std::ops::Range<usize>| {
            for i in numbers {
                outbox.board.write(text(&format!("{i}"), Kind::Status), Audience::All);
            }
        };
        count(0..1000);
        outbox.push(text("event", Kind::Event));
        count(1000..2000);
        assert_eq!(waiting(&outbox), ["hello", "999", "event", "1999"]);
        assert_eq!(outbox.state.lock().bytes, 0);
        // One that keeps up gets them all.
        count(0..3);
        assert_eq!(waiting(&outbox), ["0", "1", "2"]);
    }

    fn waiting(outbox: &Outbox) -> Vec<String> {
        let texts = std::iter::from_fn(|| outbox.ready()).map(|next| match next {
            Next::Message(message) => message.into_text().unwrap().to_string(),
            other => format!("{other:?}"),
        });
        texts.collect()
    }

    #[test]
    fn a_client_that_misses_notices_is_told_how_things_stand() {
        let outbox = outbox();
        let notices = |count| {
            for i in 0..count {
                outbox.board.write(text(&format!("{i}"), Kind::Event), Audience::All);
            }
        };
        notices(10_000);
        outbox.push(text("own", Kind::Event));
        assert_eq!(waiting(&outbox), ["Resync", "own"]);
        notices(1);
        assert_eq!(waiting(&outbox), ["0"]);
    }

    #[test]
    fn many_small_messages_are_bounded_too() {
        let outbox = outbox();
        for _ in 0..(3 * MAX_MESSAGES) {
            outbox.push(text("end", Kind::End));
        }
        assert!(outbox.state.lock().own.len() <= MAX_MESSAGES);
    }
}
