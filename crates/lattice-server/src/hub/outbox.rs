//! Messages on their way to one client, never more than a bounded amount of them.

use std::collections::VecDeque;

use axum::extract::ws::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most messages that wait for a client.
const MAX_MESSAGES: usize = 32_768;

/// A client for which so many messages wait is behind.
const BEHIND: usize = 16;

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

/// What becomes of a message that a client does not read in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is lost when too much waits.
    Event,
    /// How long the queue is: the next one takes its place.
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
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
}

enum Waiting {
    Message(Outgoing),
    Resync,
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(outgoing) => size(&outgoing.message),
            Self::Resync => 0,
        }
    }

    fn is(&self, wanted: Kind) -> bool {
        matches!(self, Self::Message(Outgoing { kind, .. }) if *kind == wanted)
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

impl Outbox {
    /// Adds a message. If too much waits, all goes but what tells the end of a prompt, and the client will be told how
    /// things stand. A client that is behind gets the last one of several lengths of the queue in a row.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if outgoing.kind == Kind::Status && state.queue.len() >= BEHIND {
            state.outdate_status();
        }
        let full = state.queue.len() >= MAX_MESSAGES
            || (!state.queue.is_empty() && state.bytes + size(&outgoing.message) > MAX_BYTES);
        if full {
            state.overflow();
        }
        state.bytes += size(&outgoing.message);
        state.queue.push_back(Waiting::Message(outgoing));
        self.ready.notify_one();
    }

    /// Ends the connection once what waits has been sent.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_one();
    }

    /// The next message, if one waits.
    pub(crate) fn ready(&self) -> Option<Next> {
        self.state.lock().pop()
    }

    /// Waits for the next message.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.state.lock().pop() {
                return next;
            }
            self.ready.notified().await;
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Next> {
        let Some(waiting) = self.queue.pop_front() else {
            return self.closed.then_some(Next::Close);
        };
        self.bytes -= waiting.bytes();
        Some(match waiting {
            Waiting::Message(outgoing) => Next::Message(outgoing.message),
            Waiting::Resync => Next::Resync,
        })
    }

    /// Drops a status that nothing follows.
    fn outdate_status(&mut self) {
        if let Some(outdated) = self.queue.pop_back_if(|last| last.is(Kind::Status)) {
            self.bytes -= outdated.bytes();
        }
    }

    fn overflow(&mut self) {
        self.queue.retain(|waiting| waiting.is(Kind::End));
        let surplus = self.queue.len().saturating_sub(MAX_KEPT);
        self.queue.drain(..surplus);
        self.queue.push_back(Waiting::Resync);
        self.bytes = self.queue.iter().map(Waiting::bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, kind: Kind) -> Outgoing {
        Outgoing { message: Message::Text(text.into()), kind }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_costs_a_bounded_amount() {
        let outbox = Outbox::default();
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

    #[tokio::test]
    async fn lengths_of_the_queue_do_not_pile_up() {
        let outbox = Outbox::default();
        for i in 0..1000 {
            outbox.push(text(&format!("{i}"), Kind::Status));
        }
        outbox.push(text("event", Kind::Event));
        for i in 1000..2000 {
            outbox.push(text(&format!("{i}"), Kind::Status));
        }
        let waiting = std::iter::from_fn(|| outbox.ready());
        let texts: Vec<String> = waiting
            .map(|next| match next {
                Next::Message(message) => message.into_text().unwrap().to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        let usual = (0..BEHIND - 1).map(|i| i.to_string());
        let expected: Vec<String> = usual.chain(["999", "event", "1999"].map(str::to_owned)).collect();
        assert_eq!(texts, expected);
        assert_eq!(outbox.state.lock().bytes, 0);
    }

    #[tokio::test]
    async fn many_small_messages_are_bounded_too() {
        let outbox = Outbox::default();
        for _ in 0..(3 * MAX_MESSAGES) {
            outbox.push(text("end", Kind::End));
        }
        assert!(outbox.state.lock().queue.len() <= MAX_MESSAGES);
    }
}
