//! The numbers that files saved shortly after one another get, without reading their folder each time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// How long after a folder was read its numbers are counted on from there. Some file systems see changes of the same few
/// milliseconds as one, so that another program's file can go unnoticed; for no longer than this.
const TRUST: Duration = Duration::from_secs(1);

/// Most names that are remembered.
const MAX_NAMES: usize = 256;

/// What is known of names in folders.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<HashMap<(PathBuf, String), Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The number of the next file.
    next: u64,
    /// When the folder was read.
    read: Instant,
    /// When it had last changed after our own last file.
    changed: SystemTime,
}

impl Counters {
    /// The next number for a name in a folder and when the folder was read for it, if nobody else has changed the folder
    /// since.
    pub(super) fn next(&self, folder: &Path, name: &str) -> Option<(u64, Instant)> {
        let known = *self.0.lock().get(&(folder.to_owned(), name.to_owned()))?;
        let valid = known.read.elapsed() < TRUST && changed(folder) == Some(known.changed);
        valid.then_some((known.next, known.read))
    }

    /// Notes the next number after a file was saved.
    pub(super) fn note(&self, folder: &Path, name: &str, next: u64, read: Instant) {
        let Some(changed) = changed(folder) else { return };
        let mut all = self.0.lock();
        if all.len() >= MAX_NAMES {
            all.retain(|_, known| known.read.elapsed() < TRUST);
        }
        if all.len() < MAX_NAMES {
            all.insert((folder.to_owned(), name.to_owned()), Known { next, read, changed });
        }
    }
}

fn changed(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()
}
