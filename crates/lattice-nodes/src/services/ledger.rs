//! What the running prompt has put into the output folder, so that a run that was cut short leaves nothing behind
//! when it is done over.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::write::sync_folder;
use crate::{Error, Result};

/// Files of the prompt that runs. Kept in a file if they are to survive the end of the process.
///
/// With a ledger, the names of files are not taken to the disk one by one: [`Ledger::end`] does it once for all. What
/// stands under a name is on disk before the name is, unless the ledger is one in memory: then nothing is synced.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    placed: Vec<PathBuf>,
}

/// A line of the ledger's file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    /// The run whose files follow.
    Run(String),
    /// A file that has no final name yet.
    Temporary(PathBuf),
    /// A file that is about to get its name.
    Placed { path: PathBuf, identity: Identity },
    /// The name was taken by somebody else's file.
    Taken(PathBuf),
}

/// Tells a file from another of the same name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Identity {
    length: u64,
    /// Number of the file in its file system, where there are such numbers.
    inode: Option<u64>,
}

impl Identity {
    fn of(file: &std::fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = Some(std::os::unix::fs::MetadataExt::ino(file));
        #[cfg(not(unix))]
        let inode = None;
        Self { length: file.len(), inode }
    }
}

impl Ledger {
    /// One that dies with the process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// One kept in a file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), state: Mutex::default() }
    }

    /// A run begins. If the ledger's file tells of an earlier try at the same run, what that put into place goes.
    ///
    /// # Errors
    /// If the ledger's file cannot be read or written, or a left-over file cannot be removed.
    pub fn begin(&self, run: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.placed.clear();
        let Some(path) = &self.path else { return Ok(()) };
        let entries = read(path)?;
        if matches!(entries.first(), Some(Entry::Run(earlier)) if earlier == run) {
            undo(&entries)?;
        }
        let file = match state.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(path).map_err(Error::file(path))?,
        };
        file.set_len(0).map_err(Error::file(path))?;
        state.file = Some(file);
        self.write(&mut state, &Entry::Run(run.to_owned()))
    }

    /// The run has ended: the names of its files are on disk when this returns, if the ledger is meant to outlive the
    /// process.
    ///
    /// # Errors
    /// If a folder cannot be synced.
    pub fn end(&self) -> Result<()> {
        let placed = std::mem::take(&mut self.state.lock().placed);
        if !self.lasts() {
            return Ok(());
        }
        let mut folders: Vec<&Path> = placed.iter().filter_map(|path| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders.into_iter().try_for_each(sync_folder)
    }

    /// Whether it outlives the process.
    pub(super) fn lasts(&self) -> bool {
        self.path.is_some()
    }

    /// A temporary file is about to be made.
    pub(super) fn temporary(&self, path: &Path) -> Result<()> {
        self.write(&mut self.state.lock(), &Entry::Temporary(path.to_owned()))
    }

    /// The temporary file `file` is about to get its name.
    pub(super) fn placing(&self, path: &Path, file: &File) -> Result<()> {
        let identity = Identity::of(&file.metadata().map_err(Error::file(path))?);
        let mut state = self.state.lock();
        state.placed.push(path.to_owned());
        self.write(&mut state, &Entry::Placed { path: path.to_owned(), identity })
    }

    /// It did not get it.
    pub(super) fn taken(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.placed.pop();
        self.write(&mut state, &Entry::Taken(path.to_owned()))
    }

    /// The end of the process cannot undo a write; only a power cut can, and then the files may be gone as well.
    fn write(&self, state: &mut State, entry: &Entry) -> Result<()> {
        let (Some(path), Some(file)) = (&self.path, &mut state.file) else { return Ok(()) };
        let mut line = serde_json::to_vec(entry).map_err(Error::other)?;
        line.push(b'\n');
        file.write_all(&line).map_err(Error::file(path))
    }
}

/// The whole lines of a ledger's file; none if there is no file.
fn read(path: &Path) -> Result<Vec<Entry>> {
    match File::open(path) {
        Ok(file) => {
            let lines = BufReader::new(file).split(b'\n').map_while(std::result::Result::ok);
            Ok(lines.map_while(|line| serde_json::from_slice(&line).ok()).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::file(path)(e)),
    }
}

/// Removes the files of a run that was cut short, unless something else has their names now.
fn undo(entries: &[Entry]) -> Result<()> {
    for (i, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Temporary(path) => remove(path)?,
            Entry::Placed { path, identity } => {
                let taken = matches!(entries.get(i + 1), Some(Entry::Taken(_)));
                if !taken && std::fs::metadata(path).is_ok_and(|file| Identity::of(&file) == *identity) {
                    remove(path)?;
                }
            }
            Entry::Run(_) | Entry::Taken(_) => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Folders, OutputNames, Root};
    use super::*;
    use std::sync::Arc;

    fn save(folders: &Folders, content: &[u8]) -> String {
        OutputNames::new(folders, Root::Output, "a", (0, 0))
            .unwrap()
            .write(0, "png", content)
            .unwrap()
            .filename
    }

    #[test]
    fn a_run_that_is_done_over_leaves_nothing_twice() {
        let base = tempfile::tempdir().unwrap();
        let start = || {
            let ledger = Arc::new(Ledger::at(base.path().join("ledger")));
            (Folders::new(base.path()).with_ledger(ledger.clone()), ledger)
        };
        let (folders, ledger) = start();
        ledger.begin("1").unwrap();
        assert_eq!(save(&folders, b"kept"), "a_00001_.png");
        ledger.end().unwrap();
        ledger.begin("2").unwrap();
        assert_eq!(save(&folders, b"cut short"), "a_00002_.png");
        std::fs::write(base.path().join("output/.lattice-left"), b"half").unwrap();
        ledger.temporary(&base.path().join("output/.lattice-left")).unwrap();
        assert_eq!(save(&folders, b"replaced"), "a_00003_.png");
        std::fs::write(base.path().join("output/other"), b"somebody else's").unwrap();
        std::fs::rename(base.path().join("output/other"), base.path().join("output/a_00003_.png")).unwrap();

        let (folders, ledger) = start();
        ledger.begin("2").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(base.path().join("output"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["a_00001_.png", "a_00003_.png"]);
        save(&folders, b"again");

        let (_, ledger) = start();
        ledger.begin("3").unwrap();
        assert!(base.path().join("output/a_00004_.png").exists(), "another run's files stay");
    }

    #[test]
    fn a_torn_line_ends_what_is_known() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("ledger");
        let kept = base.path().join("kept");
        std::fs::write(&kept, b"x").unwrap();
        std::fs::write(&path, format!("{{\"run\":\"1\"}}\n{{\"temporary\":{kept:?}}}\n{{\"tempo")).unwrap();
        Ledger::at(&path).begin("2").unwrap();
        assert!(kept.exists());
        std::fs::write(&path, format!("{{\"run\":\"1\"}}\n{{\"temporary\":{kept:?}}}\n{{\"tempo")).unwrap();
        Ledger::at(&path).begin("1").unwrap();
        assert!(!kept.exists());
    }
}
