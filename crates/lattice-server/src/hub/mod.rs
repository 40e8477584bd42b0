//! Who listens, and what they are told: clients with a socket each its own messages, listeners to `/events` all the same.

mod feed;
mod incoming;
mod journal;
mod messages;
mod outbox;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::store::QueueChange;

pub(crate) use feed::{Feed, now_millis};
pub use incoming::{ClientMessage, Features};
pub(crate) use journal::{Heard, Journal, Listener};
pub(crate) use messages::{executing_now, feature_flags, logs, read_preview, status, status_with_sid};
pub(crate) use outbox::{Next, Outbox, Outgoing};

/// The connected clients.
#[derive(Default)]
pub(crate) struct Hub {
    clients: Mutex<HashMap<String, Arc<Client>>>,
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
    /// Takes previews with metadata.
    preview_metadata: AtomicBool,
}

impl Client {
    /// Notes what the client said it can do.
    pub(crate) fn set_features(&self, features: Features) {
        self.preview_metadata.store(features.preview_metadata, Ordering::Relaxed);
    }

    fn preview_metadata(&self) -> bool {
        self.preview_metadata.load(Ordering::Relaxed)
    }
}

impl Hub {
    /// Adds a client. `first` makes the messages it gets before any other; while it does, nobody is told anything. A
    /// client of the same id gets nothing any more.
    pub(crate) fn connect<I>(&self, id: String, first: impl FnOnce() -> I) -> Arc<Client>
    where
        I: IntoIterator<Item = Outgoing>,
    {
        let client = Arc::new(Client {
            id: id.clone(),
            outbox: Outbox::default(),
            serial: self.next.fetch_add(1, Ordering::Relaxed),
            preview_metadata: AtomicBool::new(false),
        });
        let mut clients = self.clients.lock();
        for outgoing in first() {
            client.outbox.push(outgoing);
        }
        clients.insert(id, client.clone());
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
    pub(crate) fn broadcast(&self, outgoing: &Outgoing) {
        for client in self.clients.lock().values() {
            client.outbox.push(outgoing.clone());
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

    fn everybody(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }

    /// Hangs up on everybody once they have got what waits for them.
    pub(crate) fn close(&self) {
        self.journal.close();
        for client in self.clients.lock().values() {
            client.outbox.close();
        }
    }
}
