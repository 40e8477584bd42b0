//! Files that are whole or not there.

use std::io::{BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, PersistError};

use super::Ledger;
use crate::{Error, Result};

/// Writes a new file: under a temporary name first, synced to disk, then renamed. Makes the folder if need be.
/// False if a file of that name exists, which is left as it is.
///
/// # Errors
/// If the system refuses any of the steps.
pub fn write_new(path: &Path, content: &[u8]) -> Result<bool> {
    let file = temporary(path, content)?;
    Ok(place_new(file, path, None)?.is_none())
}

/// Gives a finished temporary file its name; gives it back if the name is taken.
pub(super) fn place_new(
    file: NamedTempFile,
    path: &Path,
    ledger: Option<&Ledger>,
) -> Result<Option<NamedTempFile>> {
    if let Some(ledger) = ledger {
        ledger.placing(path, file.as_file())?;
    }
    match (file.persist_noclobber(path), ledger) {
        (Ok(_), None) => sync_folder_of(path).map(|()| None),
        (Ok(_), Some(_)) => Ok(None),
        (Err(PersistError { error, file }), _) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            ledger.map_or(Ok(()), |ledger| ledger.taken(path))?;
            Ok(Some(file))
        }
        (Err(PersistError { error, .. }), _) => Err(Error::file(path)(error)),
    }
}

/// Writes a file as [`write_new`] does, but replaces one of that name.
///
/// # Errors
/// If the system refuses any of the steps.
pub fn write_over(path: &Path, content: &[u8]) -> Result<()> {
    let file = temporary(path, content)?;
    file.persist(path).map_err(|e| Error::file(path)(e.error))?;
    sync_folder_of(path)
}

/// A synced file with the content beside `path`, gone unless it is renamed.
fn temporary(path: &Path, content: &[u8]) -> Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    temporary_with(folder, None, |out| out.write_all(content).map_err(Error::file(path)))
}

/// A file in `folder` with what `fill` writes, gone unless it is renamed. Synced, unless it stands in a ledger that
/// promises nothing beyond the end of the process.
pub(super) fn temporary_with(
    folder: &Path,
    ledger: Option<&Ledger>,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<NamedTempFile> {
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let create = |path: &Path| {
        // Noted before it is there: killed in between, the process would leave a file that nobody knows of.
        ledger.map_or(Ok(()), |ledger| ledger.temporary(path)).map_err(std::io::Error::other)?;
        std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)
    };
    // Opened like any other new file, since results are as shared as that; temporary files are private by default.
    let mut file = Builder::new().prefix(".lattice-").make_in(folder, create).map_err(Error::file(folder))?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut file);
    fill(&mut out)?;
    out.flush().map_err(Error::file(folder))?;
    drop(out);
    if ledger.is_none_or(Ledger::lasts) {
        file.as_file().sync_data().map_err(Error::file(folder))?;
    }
    Ok(file)
}

/// Makes the rename itself durable.
fn sync_folder_of(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

/// Takes the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere folders cannot be opened, and need not be.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file(folder))?;
    Ok(())
}
