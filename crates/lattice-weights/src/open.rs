//! Opening whatever a path holds.

use std::path::Path;

use bytes::Bytes;

use crate::error::{Cause, FileError, display};
use crate::{StateDict, folder, gguf, map, pickle, safetensors};

/// Model file formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `.safetensors`.
    Safetensors,
    /// PyTorch's pickles, in a zip archive or bare.
    Pickle,
    /// `.gguf`.
    Gguf,
}

impl Format {
    /// The format of a file's first bytes, whatever its name.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&gguf::MAGIC) {
            return Some(Self::Gguf);
        }
        // Protocol 2 to 5 of a bare pickle.
        let bare = matches!(bytes, [0x80, 2..=5, ..]);
        if bytes.starts_with(&pickle::ZIP_MAGIC) || bare {
            return Some(Self::Pickle);
        }
        // A header length is followed by a JSON object.
        (bytes.get(8) == Some(&b'{')).then_some(Self::Safetensors)
    }
}

/// Opens a model file of any format, told by its content, or a diffusers folder. Files are mapped, not read.
///
/// # Errors
/// Names the file and, where one is at fault, the tensor.
pub fn open_any(path: &Path) -> Result<StateDict, FileError> {
    if path.is_dir() {
        return folder::open(path);
    }
    let bytes = map::map(path)?;
    let name = display(path);
    match Format::of(&bytes) {
        Some(Format::Safetensors) => safetensors::from_bytes(&name, bytes),
        Some(Format::Pickle) => pickle::from_bytes(&name, bytes),
        Some(Format::Gguf) => gguf::from_bytes(&name, bytes),
        // What is too damaged to be told is explained as what its name promises.
        None if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
            && hint(&bytes).is_empty() =>
        {
            safetensors::from_bytes(&name, bytes)
        }
        None => {
            let first = bytes[..bytes.len().min(8)].to_vec();
            Err(Cause::UnknownFormat { first, hint: hint(&bytes) }.of(&name))
        }
    }
}

/// What people have instead of a model file.
fn hint(bytes: &Bytes) -> &'static str {
    let start = bytes[..bytes.len().min(512)].trim_ascii_start();
    if start.starts_with(b"version https://git-lfs") {
        "; it is a Git LFS pointer: the file itself was not downloaded"
    } else if start.starts_with(b"<") {
        "; it is a web page: the download went wrong"
    } else if start.starts_with(b"\x89PNG") || start.starts_with(b"\xff\xd8\xff") {
        "; it is a picture"
    } else {
        ""
    }
}
