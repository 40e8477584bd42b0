//! Whether the server can do its work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::app::App;

/// How long an answer holds: asking writes to the disk, and anybody may ask.
const HOLDS: Duration = Duration::from_secs(1);

/// How long the queue may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was found last, and when.
#[derive(Default)]
pub(crate) struct Health(Mutex<Option<(Instant, Result<(), String>)>>);

/// Whether a prompt could be queued and executed now, or why not.
pub(crate) async fn check(app: &Arc<App>) -> Result<(), String> {
    if app.stopping.load(Ordering::Relaxed) {
        return Err("the server is stopping".into());
    }
    if app.engine.ended() {
        return Err("prompts are not executed any more".into());
    }
    let probe = tokio::time::timeout(PATIENCE, probe(app));
    probe.await.unwrap_or_else(|_| Err("the queue does not answer".into()))
}

/// Has one ask the database; others wait for what it says, without a thread.
async fn probe(app: &Arc<App>) -> Result<(), String> {
    let mut last = app.health.0.lock().await;
    if let Some((when, found)) = &*last
        && when.elapsed() < HOLDS
    {
        return found.clone();
    }
    let asked = app.clone();
    let found = tokio::task::spawn_blocking(move || asked.store.probe().map_err(|e| e.to_string())).await;
    let found = found.unwrap_or_else(|e| Err(e.to_string()));
    *last = Some((Instant::now(), found.clone()));
    found
}
