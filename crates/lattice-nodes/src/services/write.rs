//! Files that are whole or not there.

use std::io::{BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, PersistError};

use crate::{Error, Result};

/// Writes a new file: under a temporary name first, synced to disk, then renamed. Makes the folder if need be.
/// False if a file of that name exists, which is left as it is.
///
/// # Errors
/// If the system refuses any of the steps.
pub fn write_new(path: &Path, content: &[u8]) -> Result<bool> {
    let file = temporary(path, content)?;
    Ok(place_new(file, path)?.is_none())
}

/// Gives a finished temporary file its name; gives it back if the name is taken.
pub(super) fn place_new(file: NamedTempFile, path: &Path) -> Result<Option<NamedTempFile>> {
    match file.persist_noclobber(path) {
        Ok(_) => sync_folder(path).map(|()| None),
        Err(PersistError { error, file }) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(Some(file))
        }
        Err(PersistError { error, .. }) => Err(Error::file(path)(error)),
    }
}

/// Writes a file as [`write_new`] does, but replaces one of that name.
///
/// # Errors
/// If the system refuses any of the steps.
pub fn write_over(path: &Path, content: &[u8]) -> Result<()> {
    let file = temporary(path, content)?;
    file.persist(path).map_err(|e| Error::file(path)(e.error))?;
    sync_folder(path)
}

/// A synced file with the content beside `path`, gone unless it is renamed.
fn temporary(path: &Path, content: &[u8]) -> Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    temporary_with(folder, |out| out.write_all(content).map_err(Error::file(path)))
}

/// A synced file in `folder` with what `fill` writes, gone unless it is renamed.
pub(super) fn temporary_with(
    folder: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<NamedTempFile> {
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut builder = Builder::new();
    builder.prefix(".lattice-");
    // Temporary files are private to their owner by default; results are as shared as any other new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(Error::file(folder))?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut file);
    fill(&mut out)?;
    out.flush().map_err(Error::file(folder))?;
    drop(out);
    file.as_file().sync_all().map_err(Error::file(folder))?;
    Ok(file)
}

/// Makes the rename itself durable.
fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file(folder))?;
    }
    Ok(())
}
