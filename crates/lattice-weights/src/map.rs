//! Files as memory-mapped bytes, and files written all or nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

use crate::error::{Cause, FileError, display};

/// Maps a file. Nothing is read until it is touched, and the pages are shared between processes.
pub(crate) fn map(path: &Path) -> Result<Bytes, FileError> {
    let fail = |cause: Cause| cause.of(&display(path));
    let file = File::open(path).map_err(|e| fail(e.into()))?;
    let metadata = file.metadata().map_err(|e| fail(e.into()))?;
    if metadata.is_dir() {
        return Err(fail(Cause::Directory));
    }
    if metadata.len() == 0 {
        return Err(fail(Cause::Empty));
    }
    // SAFETY: the map is only ever read, as bytes, for which every value is valid. Should another process change the file meanwhile,
    // weights read then are wrong; should it cut the file, reading the lost pages raises SIGBUS. Both are the accepted price of
    // mapping; files written by this crate are replaced by renaming, which leaves an open map untouched.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(e.into()))?;
    Ok(Bytes::from_owner(map))
}

/// A file that appears under its name only once it is complete and on the disk.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Opens a temporary file beside `target`.
    pub(crate) fn create(target: &Path) -> std::io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = target
            .file_name()
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.part", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = target.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let writer = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { target: target.to_owned(), temporary, writer: Some(writer) })
    }

    /// Flushes to the disk and takes the target's name, replacing what was there.
    pub(crate) fn commit(mut self) -> std::io::Result<()> {
        let writer = self.writer.take().ok_or(std::io::ErrorKind::NotFound)?;
        let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error);
        let done =
            file.and_then(|f| f.sync_all()).and_then(|()| std::fs::rename(&self.temporary, &self.target));
        if done.is_err() {
            // The rename did not happen, so the temporary file is still ours to remove.
            let _ = std::fs::remove_file(&self.temporary);
            return done;
        }
        // The new name itself must reach the disk too; not every file system lets a folder be synced.
        if let Some(folder) = self.target.parent().filter(|p| !p.as_os_str().is_empty())
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(buf),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
