//! Names of saved files: `<prefix>_<counter, five digits>_.<extension>`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Datelike, Local, Timelike};
use serde_json::{Value as Json, json};

use super::counters::Counters;
use super::write::{place_new, temporary_with};
use super::{Folders, Ledger, Root, inside};
use crate::{Error, Result};

/// Stands for the index in the batch.
const BATCH_NUMBER: &str = "%batch_num%";

/// A place for files of one node's call, and the counter that numbers them.
#[derive(Clone, Debug)]
pub struct OutputNames {
    folder: PathBuf,
    subfolder: String,
    /// May hold [`BATCH_NUMBER`].
    name: String,
    root: Root,
    counter: u64,
    /// When the folder was read to find that number.
    read: Instant,
    counters: Arc<Counters>,
    ledger: Option<Arc<Ledger>>,
}

/// A saved file as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// Name in its folder.
    pub filename: String,
    /// Folder below the root, `/` between levels.
    pub subfolder: String,
    /// Which root.
    pub root: Root,
}

impl SavedFile {
    /// The entry of UI output.
    pub fn entry(&self) -> Json {
        json!({"filename": self.filename, "subfolder": self.subfolder, "type": self.root.name()})
    }
}

impl OutputNames {
    /// Names from a `filename_prefix`. `size` is width and height of the first picture, 0 where there is none.
    ///
    /// # Errors
    /// If the prefix leaves the root, or the folder cannot be made.
    pub fn new(folders: &Folders, root: Root, prefix: &str, size: (usize, usize)) -> Result<Self> {
        Self::at(folders, root, prefix, size, &Local::now())
    }

    /// [`Self::new`] at a given time.
    fn at(
        folders: &Folders,
        root: Root,
        prefix: &str,
        size: (usize, usize),
        now: &DateTime<Local>,
    ) -> Result<Self> {
        let base = folders.root(root);
        let prefix = substitute(prefix, size, now);
        let below = below(base, &prefix).ok_or_else(|| {
            Error::OutsideFolder(format!(
                "**** ERROR: Saving image outside the output folder is not allowed.\n prefix: {prefix}\n folder: {}",
                base.display()
            ))
        })?;
        // An empty prefix names the folder itself, which the reference writes as a dot.
        let name = below.file_name().map_or_else(|| ".".into(), |name| name.to_string_lossy().into_owned());
        let parts: Vec<_> = below.parent().into_iter().flatten().map(|part| part.to_string_lossy()).collect();
        let subfolder = parts.join("/");
        let folder = if subfolder.is_empty() { base.to_owned() } else { base.join(&subfolder) };
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        let counters = folders.counters();
        let (counter, read) = match counters.next(&folder, &name) {
            Some(known) => known,
            None => (next_counter(&folder, &name)?, Instant::now()),
        };
        Ok(Self { folder, subfolder, name, root, counter, read, counters, ledger: folders.ledger(root) })
    }

    /// The number that the next file gets.
    pub fn next_number(&self) -> u64 {
        self.counter
    }

    /// Writes the next file. A number that someone else took since the folder was read is passed over.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, batch_index: usize, extension: &str, content: &[u8]) -> Result<SavedFile> {
        let path = self.folder.clone();
        self.write_with(batch_index, extension, |out| out.write_all(content).map_err(Error::file(path)))
    }

    /// As [`Self::write`] with content that `fill` writes piece by piece.
    ///
    /// # Errors
    /// As [`Self::write`], and where `fill` fails.
    pub fn write_with(
        &mut self,
        batch_index: usize,
        extension: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<SavedFile> {
        let mut file = temporary_with(&self.folder, self.ledger.as_deref(), fill)?;
        loop {
            let name = self.name.replace(BATCH_NUMBER, &batch_index.to_string());
            let filename = format!("{name}_{:05}_.{extension}", self.counter);
            self.counter += 1;
            match place_new(file, &self.folder.join(&filename), self.ledger.as_deref())? {
                None => {
                    self.counters.note(&self.folder, &self.name, self.counter, self.read);
                    return Ok(SavedFile { filename, subfolder: self.subfolder.clone(), root: self.root });
                }
                Some(back) => file = back,
            }
        }
    }
}

/// The prefix as a path below the root; None if it leaves it. An empty path is the root itself.
fn below(root: &Path, prefix: &str) -> Option<PathBuf> {
    let relative = match Path::new(prefix).strip_prefix(root) {
        Ok(inner) => inner.to_str()?,
        Err(_) => prefix,
    };
    if relative.is_empty() || relative == "." { Some(PathBuf::new()) } else { inside(relative) }
}

/// Replaces what stands between percent signs and is known; the rest stays.
fn substitute(prefix: &str, (width, height): (usize, usize), now: &DateTime<Local>) -> String {
    let values = [
        ("%width%", width.to_string()),
        ("%height%", height.to_string()),
        ("%year%", now.year().to_string()),
        ("%month%", format!("{:02}", now.month())),
        ("%day%", format!("{:02}", now.day())),
        ("%hour%", format!("{:02}", now.hour())),
        ("%minute%", format!("{:02}", now.minute())),
        ("%second%", format!("{:02}", now.second())),
    ];
    values.iter().fold(prefix.to_owned(), |text, (key, value)| text.replace(key, value))
}

/// One more than the largest number among the folder's entries of that name.
///
/// With a batch number in the name every index counts: the reference starts at 1 again then and overwrites the files of
/// the run before.
fn next_counter(folder: &Path, name: &str) -> Result<u64> {
    let entries = std::fs::read_dir(folder).map_err(Error::file(folder))?;
    let numbers = entries.flatten().filter_map(|entry| counter_of(entry.file_name().to_str()?, name));
    Ok(numbers.max().unwrap_or(0).saturating_add(1))
}

/// The number N of an entry `<name>_N_...`; 0 for `<name>_...` without one.
fn counter_of(entry: &str, name: &str) -> Option<u64> {
    let mut rest = entry;
    for (i, piece) in name.split(BATCH_NUMBER).enumerate() {
        if i > 0 {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        rest = rest.strip_prefix(piece)?;
    }
    let (number, _) = rest.strip_prefix('_')?.split_once('_')?;
    Some(number.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn names(base: &Path, prefix: &str) -> Result<OutputNames> {
        let now = Local.with_ymd_and_hms(2025, 3, 4, 5, 6, 7).unwrap();
        OutputNames::at(&Folders::new(base), Root::Output, prefix, (640, 480), &now)
    }

    fn save(base: &Path, prefix: &str) -> (String, String) {
        let saved = names(base, prefix).unwrap().write(2, "png", b"x").unwrap();
        (saved.subfolder, saved.filename)
    }

    #[test]
    fn prefixes_become_names() {
        let base = tempfile::tempdir().unwrap();
        let inside_output = base.path().join("output/in/b").display().to_string();
        for (prefix, subfolder, filename) in [
            ("a", "", "a_00001_.png"),
            ("a", "", "a_00002_.png"),
            ("cap/a", "cap", "a_00001_.png"),
            ("x/../cap/./a", "cap", "a_00002_.png"),
            ("", "", "._00001_.png"),
            ("sub/", "", "sub_00001_.png"),
            (&inside_output, "in", "b_00001_.png"),
            ("%year%-%month%-%day%/%hour%%minute%%second%", "2025-03-04", "050607_00001_.png"),
            ("%width%x%height%_%unknown%", "", "640x480_%unknown%_00001_.png"),
            ("n_%batch_num%", "", "n_2_00001_.png"),
            ("n_%batch_num%", "", "n_2_00002_.png"),
        ] {
            assert_eq!(save(base.path(), prefix), (subfolder.to_owned(), filename.to_owned()), "{prefix}");
        }
    }

    #[test]
    fn the_counter_goes_on_from_the_largest_number() {
        let base = tempfile::tempdir().unwrap();
        let output = base.path().join("output");
        std::fs::create_dir_all(&output).unwrap();
        for taken in ["a_00050.png", "a_00007_.webp", "a_x_.png", "ab_00099_.png", "a_12_more_.png"] {
            std::fs::write(output.join(taken), b"").unwrap();
        }
        assert_eq!(save(base.path(), "a").1, "a_00013_.png");
    }

    #[test]
    fn what_others_do_in_the_folder_counts_at_the_next_save() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::new(base.path());
        let output = base.path().join("output");
        let save = || {
            // Longer than the clock of the file system needs to move on.
            std::thread::sleep(std::time::Duration::from_millis(30));
            let mut names = OutputNames::new(&folders, Root::Output, "a", (0, 0)).unwrap();
            names.write(0, "png", b"x").unwrap().filename
        };
        assert_eq!([save(), save(), save()], ["a_00001_.png", "a_00002_.png", "a_00003_.png"]);
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::write(output.join("a_00050_.png"), b"").unwrap();
        assert_eq!([save(), save()], ["a_00051_.png", "a_00052_.png"]);
        std::thread::sleep(std::time::Duration::from_millis(30));
        for number in 50..=52 {
            std::fs::remove_file(output.join(format!("a_000{number}_.png"))).unwrap();
        }
        assert_eq!(save(), "a_00004_.png");
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::remove_dir_all(&output).unwrap();
        assert_eq!(save(), "a_00001_.png");
    }

    #[test]
    fn a_number_taken_meanwhile_is_passed_over() {
        let base = tempfile::tempdir().unwrap();
        let (mut ours, mut theirs) = (names(base.path(), "a").unwrap(), names(base.path(), "a").unwrap());
        theirs.write(0, "png", b"theirs").unwrap();
        assert_eq!(ours.write(0, "png", b"ours").unwrap().filename, "a_00002_.png");
        assert_eq!(std::fs::read(base.path().join("output/a_00001_.png")).unwrap(), b"theirs");
        // Nothing half-written stays.
        assert_eq!(std::fs::read_dir(base.path().join("output")).unwrap().count(), 2);
    }

    #[test]
    fn nothing_is_saved_outside_the_output_folder() {
        let base = tempfile::tempdir().unwrap();
        for prefix in ["../x", "/abs/x", "a/../../x", "..", "a\0b"] {
            let error = names(base.path(), prefix).unwrap_err().to_string();
            let start = "**** ERROR: Saving image outside the output folder is not allowed.";
            assert!(error.starts_with(start), "{prefix:?}: {error}");
        }
    }
}
