//! What can be wrong with a model file.

use std::path::Path;

/// A file that cannot be read or written, with the tensor at fault where there is one.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {cause}", tensor.as_deref().map(|t| format!(": tensor `{t}`")).unwrap_or_default())]
pub struct FileError {
    /// The file as it was named by the caller.
    pub file: String,
    /// Full name of the tensor at fault.
    pub tensor: Option<String>,
    /// What is wrong. Not a source: the message says it already, and chains of causes would say it twice.
    pub cause: Cause,
}

/// What is wrong with a file or one of its tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The path names a folder where a file is needed.
    #[error("is a folder, not a file")]
    Directory,
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The first bytes belong to no known format.
    #[error("no known model file format (first bytes {first:02x?}){hint}")]
    UnknownFormat {
        /// The file's first bytes.
        first: Vec<u8>,
        /// What they look like instead.
        hint: &'static str,
    },
    /// The file ends before what its header promises.
    #[error("truncated: {what} needs bytes up to {needed}, the file has {present}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// End of it in the file.
        needed: u64,
        /// Length of the file.
        present: u64,
    },
    /// Bytes after the last tensor that no tensor accounts for.
    #[error("{surplus} bytes after the last tensor belong to none")]
    Surplus {
        /// How many.
        surplus: u64,
    },
    /// A header longer than the format allows.
    #[error("the header claims {length} bytes, more than the {limit} allowed")]
    HeaderTooLong {
        /// Claimed length.
        length: u64,
        /// Allowed length.
        limit: u64,
    },
    /// The header (or another table) is not what the format says.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Two tensors of one name.
    #[error("occurs twice")]
    Duplicate,
    /// A pickle that refers to a Python object outside the allow list. Nothing of it was run.
    #[error("the pickle refers to `{global}`, which is not allowed (it could run code)")]
    ForbiddenGlobal {
        /// Module and name.
        global: String,
    },
    /// An element type that is not supported.
    #[error("element type {dtype} is not supported")]
    DType {
        /// As the file names it.
        dtype: String,
    },
    /// More axes or elements than memory could address.
    #[error("shape {shape:?} is impossible")]
    Shape {
        /// As the file gives it.
        shape: Vec<u64>,
    },
    /// Byte range and shape contradict each other.
    #[error("shape {shape:?} of {dtype} needs {needed} bytes, its range holds {present}")]
    Size {
        /// Shape as the file gives it.
        shape: Vec<u64>,
        /// Element type.
        dtype: &'static str,
        /// What shape and type need.
        needed: u64,
        /// What the file sets aside.
        present: u64,
    },
    /// Ranges that overlap, run backwards or leave gaps.
    #[error("its bytes {begin}..{end} do not follow the previous tensor, which ends at {previous}")]
    Range {
        /// Start of the range.
        begin: u64,
        /// End of the range.
        end: u64,
        /// End of the tensor before it.
        previous: u64,
    },
}

impl Cause {
    /// A part that is not what the format says.
    pub(crate) fn malformed(what: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Malformed { what, detail: detail.to_string() }
    }

    /// The error of a file.
    pub(crate) fn of(self, file: &str) -> FileError {
        FileError { file: file.to_owned(), tensor: None, cause: self }
    }

    /// The error of a tensor of a file.
    pub(crate) fn at(self, file: &str, tensor: &str) -> FileError {
        FileError { file: file.to_owned(), tensor: Some(tensor.to_owned()), cause: self }
    }
}

/// How a path is written in messages.
pub(crate) fn display(path: &Path) -> String {
    path.display().to_string()
}
