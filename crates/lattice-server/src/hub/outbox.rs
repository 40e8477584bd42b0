//! Messages on their way to one client, never more than a bounded amount of them.

use std::collections::VecDeque;

use axum::extract::ws::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most messages that wait for a client.
const MAX_MESSAGES: usize = 32_768;

/// Most bytes that wait for a client; a single larger message still passes.
const MAX_BYTES: usize = 64 << 20;

/// Most messages that survive an overflow.
const MAX_KEPT: usize = 1024;

/// A message to a client.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The frame to send.
    pub(crate) message: Message,
    /// Tells that a prompt has ended: stays when a client that does not read loses the rest.
    pub(crate) keep: bool,
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

    fn keep(&self) -> bool {
        matches!(self, Self::Message(Outgoing { keep: true, .. }))
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
    /// things stand.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut state = self.state.lock();
        if state.closed {
            return;
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

    fn overflow(&mut self) {
        self.queue.retain(Waiting::keep);
        let surplus = self.queue.len().saturating_sub(MAX_KEPT);
        self.queue.drain(..surplus);
        self.queue.push_back(Waiting::Resync);
        self.bytes = self.queue.iter().map(Waiting::bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, keep: bool) -> Outgoing {
        Outgoing { message: Message::Text(text.into()), keep }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_costs_a_bounded_amount() {
        let outbox = Outbox::default();
        let long = "x".repeat(1 << 20);
        for i in 0..1000 {
            outbox.push(text(&long, false));
            outbox.push(text(&format!("end {i}"), true));
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
    async fn many_small_messages_are_bounded_too() {
        let outbox = Outbox::default();
        for _ in 0..(3 * MAX_MESSAGES) {
            outbox.push(text("end", true));
        }
        assert!(outbox.state.lock().queue.len() <= MAX_MESSAGES);
    }
}
