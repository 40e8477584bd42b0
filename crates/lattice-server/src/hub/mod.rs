//! Who listens, and what they are told: clients with a socket each its own messages, listeners to `/events` all the same.

mod board;
mod feed;
mod incoming;
mod journal;
mod messages;
mod outbox;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::store::QueueChange;
use board::{Audience, Board};

pub(crate) use feed::{Feed, now_millis};
pub use incoming::{ClientMessage, Features};
pub(crate) use journal::{Heard, Journal, Listener};
pub(crate) use messages::{executing_now, feature_flags, logs, read_preview, status, status_with_sid};
pub(crate) use outbox::{Next, Outbox, Outgoing};

/// What telling one client that there is something new may cost. Where there are many, they hear of it later, and of
/// more at a time: the engine does not have to share its processors with a thousand sockets at every change.
const PACE: Duration = Duration::from_micros(50);

/// How long so many clients are left in peace after they have been told something; nothing where that is shorter than
/// timers can tell.
fn pause(clients: usize) -> Duration {
    let pause = PACE * u32::try_from(clients).unwrap_or(u32::MAX);
    if pause < Duration::from_millis(1) { Duration::ZERO } else { pause }
}

/// The connected clients.
#[derive(Default)]
pub(crate) struct Hub {
    clients: Mutex<HashMap<String, Arc<Client>>>,
    /// What they are all told.
    board: Arc<Board>,
    /// Distinguishes a client from one that connects later under the same id.
    next: AtomicU64,
    /// Events for whoever listens to all.
    pub(crate) journal: Arc<Journal>,
}

/// One connected client.
pub(crate) struct Client {
    /// Id chosen by the client, or made for it.
    pub(crate) id: String,
    pub(crate) outbox: Outbox,
    serial: u64,
}

impl Client {
    /// Notes what the client said it can do.
    pub(crate) fn set_features(&self, features: Features) {
        self.outbox.take_metadata(features.preview_metadata);
    }
}

impl Hub {
    /// Adds a client. `first` makes the messages it gets before any other; while it does, nobody is told anything. A
    /// client of the same id gets nothing any more.
    pub(crate) fn connect<I>(&self, id: String, first: impl FnOnce() -> I) -> Arc<Client>
    where
        I: IntoIterator<Item = Outgoing>,
    {
        let mut clients = self.clients.lock();
        let client = Arc::new(Client {
            id: id.clone(),
            outbox: Outbox::new(self.board.clone(), first),
            serial: self.next.fetch_add(1, Ordering::Relaxed),
        });
        if let Some(former) = clients.insert(id, client.clone()) {
            former.outbox.silence();
        }
        client
    }

    /// Removes a client, but not another that has taken its id.
    pub(crate) fn disconnect(&self, client: &Client) {
        let mut clients = self.clients.lock();
        if clients.get(&client.id).is_some_and(|current| current.serial == client.serial) {
            clients.remove(&client.id);
        }
    }

    /// Tells everybody.
    pub(crate) fn broadcast(&self, outgoing: Outgoing) {
        self.announce([(outgoing, Audience::All)]);
    }

    /// Tells everybody for whom it is.
    fn announce(&self, notices: impl IntoIterator<Item = (Outgoing, Audience)>) {
        let clients = self.clients.lock();
        if clients.is_empty() {
            return;
        }
        for (outgoing, audience) in notices {
            self.board.write(outgoing, audience);
        }
        if pause(clients.len()).is_zero() {
            clients.values().for_each(|client| client.outbox.wake());
        } else {
            self.board.news.notify_one();
        }
    }

    /// Wakes many clients for which there is something new on the board, for ever.
    pub(crate) async fn cry(&self) {
        loop {
            self.board.news.notified().await;
            let clients: Vec<_> = self.clients.lock().values().cloned().collect();
            for client in &clients {
                client.outbox.wake();
            }
            tokio::time::sleep(pause(clients.len())).await;
        }
    }

    /// Tells listeners of a change of the queue.
    pub(crate) fn queue_changed(&self, change: &QueueChange, remaining: usize) {
        #[derive(Serialize)]
        struct Told<'a> {
            #[serde(flatten)]
            change: &'a QueueChange,
            queue_remaining: usize,
        }
        self.journal.write("queue", change.prompt_id(), &Told { change, queue_remaining: remaining });
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.clients.lock().len()
    }

    /// Whether a client of that id listens.
    pub(crate) fn is_connected(&self, id: &str) -> bool {
        self.clients.lock().contains_key(id)
    }

    /// Tells one client; false if it is not there.
    pub(crate) fn tell(&self, id: &str, outgoing: Outgoing) -> bool {
        let client = self.client(id);
        let found = client.is_some();
        if let Some(client) = client {
            client.outbox.push(outgoing);
        }
        found
    }

    /// The client of that id.
    fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.clients.lock().get(id).cloned()
    }

    fn is_empty(&self) -> bool {
        self.clients.lock().is_empty()
    }

    /// Hangs up on everybody once they have got what waits for them.
    pub(crate) fn close(&self) {
        self.journal.close();
        for client in self.clients.lock().values() {
            client.outbox.close();
        }
    }
}
