//! A folder that is never left, whatever links and names say.

use std::io::Write;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata};

/// A folder, open. Names and links that lead outside of it are refused by whoever resolves them: the system itself
/// where it can, else step by step from the open folder.
pub(crate) struct Folder {
    dir: Dir,
}

/// A file or folder found by [`Folder::walk`].
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Path from where the walk began, with `/` between parts.
    pub(crate) path: String,
    pub(crate) is_folder: bool,
    pub(crate) metadata: Metadata,
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no such file")]
    Absent,
    #[error("the path leads outside of its folder")]
    Outside,
    #[error("what is there is of another kind")]
    NoFile,
    #[error("there are too many files")]
    TooMany,
    #[error(transparent)]
    System(std::io::Error),
}

impl From<std::io::Error> for FileError {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match e.kind() {
            _ if e.raw_os_error() == Some(libc::ELOOP) => Self::Outside,
            Kind::NotFound | Kind::NotADirectory | Kind::InvalidFilename => Self::Absent,
            // What a path that leaves the folder is refused with.
            Kind::PermissionDenied | Kind::CrossesDevices => Self::Outside,
            Kind::IsADirectory | Kind::AlreadyExists => Self::NoFile,
            _ => Self::System(e),
        }
    }
}

type Result<T> = std::result::Result<T, FileError>;

/// Most entries that are listed.
const MAX_ENTRIES: usize = 200_000;

impl Folder {
    /// Opens a folder by its path. The path itself may lead over links.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { dir: Dir::open_ambient_dir(path, ambient_authority())? })
    }

    /// Opens a folder, made if it is not there.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// A folder below this one.
    pub(crate) fn below(&self, path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Ok(Self { dir: self.dir.try_clone()? });
        }
        Ok(Self { dir: self.dir.open_dir(path)? })
    }

    /// A folder below this one, made if it is not there.
    pub(crate) fn make_below(&self, path: &Path) -> Result<Self> {
        if !path.as_os_str().is_empty() {
            self.dir.create_dir_all(path)?;
        }
        self.below(path)
    }

    /// Opens a file to read.
    pub(crate) fn file(&self, path: &Path) -> Result<File> {
        // Looked at before it is opened: opening a pipe would wait for its other end.
        if !self.dir.metadata(path)?.is_file() {
            return Err(FileError::NoFile);
        }
        Ok(self.dir.open(path)?)
    }

    /// The content of a file.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut self.file(path)?, &mut content)?;
        Ok(content)
    }

    /// What is known of a file or folder.
    pub(crate) fn metadata(&self, path: &Path) -> Result<Metadata> {
        if path.as_os_str().is_empty() {
            return Ok(self.dir.dir_metadata()?);
        }
        Ok(self.dir.metadata(path)?)
    }

    /// Whether something of that name is there.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.dir.symlink_metadata(path).is_ok()
    }

    /// Writes a file under a temporary name, synced, then renamed: it is whole or not there. Replaces one of that
    /// name.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let name = path.file_name().ok_or(FileError::NoFile)?;
        let folder = self.below(path.parent().unwrap_or(Path::new("")))?.dir;
        if folder.is_dir(name) {
            return Err(FileError::NoFile);
        }
        let temporary = format!(".lattice-{}", uuid::Uuid::new_v4().simple());
        let written = folder.create(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()?;
            folder.rename(&temporary, &folder, name)
        });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = folder.remove_file(&temporary);
        }
        written?;
        // The name is on disk when the folder is; elsewhere folders cannot be synced.
        #[cfg(unix)]
        folder.open(".")?.sync_all()?;
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        Ok(self.dir.remove_file(path)?)
    }

    /// Moves a file.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(self.dir.rename(from, &self.dir, to)?)
    }

    /// What lies in the folder and, if `deep`, in those below it. Links that lead outside are passed over, and folders
    /// behind links are not entered.
    pub(crate) fn walk(&self, deep: bool) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut folders = vec![(String::new(), self.dir.try_clone()?)];
        while let Some((prefix, dir)) = folders.pop() {
            for entry in dir.entries()?.flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let Ok(metadata) = dir.metadata(&name) else { continue };
                let path = format!("{prefix}{name}");
                let own_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if deep && own_folder {
                    folders.extend(dir.open_dir(&name).ok().map(|dir| (format!("{path}/"), dir)));
                }
                if metadata.is_dir() || metadata.is_file() {
                    entries.push(Entry { path, is_folder: metadata.is_dir(), metadata });
                }
                if entries.len() > MAX_ENTRIES {
                    return Err(FileError::TooMany);
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

/// Seconds since the epoch, of a file's time.
pub(crate) fn seconds(time: std::io::Result<cap_std::time::SystemTime>) -> f64 {
    let since =
        time.ok().and_then(|time| time.into_std().duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_outside_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("secret"), b"secret").unwrap();
        let root = base.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/a"), b"a").unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        link("../secret", "outside");
        link("..", "up");
        link("sub", "down");
        link("sub/a", "inside");
        link("/etc", "etc");
        let folder = Folder::open(&root).unwrap();
        for path in ["outside", "up/secret", "etc/passwd", "../secret", "sub/../../secret", "/etc/passwd"] {
            let path = Path::new(path);
            assert!(matches!(folder.read(path), Err(FileError::Outside)), "{path:?}");
            assert!(folder.write(&path.join("x"), b"x").is_err(), "{path:?}");
        }
        assert!(folder.make_below(Path::new("up/new")).is_err());
        assert!(!base.path().join("new").exists());
        assert_eq!(folder.read(Path::new("down/a")).unwrap(), b"a");
        assert_eq!(folder.read(Path::new("inside")).unwrap(), b"a");
        // A link is replaced, not written through.
        folder.write(Path::new("outside"), b"new").unwrap();
        assert_eq!(std::fs::read(base.path().join("secret")).unwrap(), b"secret");
        let found: Vec<String> = folder.walk(true).unwrap().into_iter().map(|e| e.path).collect();
        assert_eq!(found, ["down", "inside", "outside", "sub", "sub/a"]);
    }

    #[test]
    fn pipes_are_no_files() {
        let base = tempfile::tempdir().unwrap();
        let pipe = base.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let folder = Folder::open(base.path()).unwrap();
        assert!(matches!(folder.read(Path::new("pipe")), Err(FileError::NoFile)));
        assert!(matches!(folder.read(Path::new("absent")), Err(FileError::Absent)));
        assert!(folder.walk(true).unwrap().is_empty());
    }
}
