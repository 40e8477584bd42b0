//! Failures of nodes.

use std::path::PathBuf;

use lattice_graph::NodeError;

/// What a node fails with. Clients see it as a [`NodeError`] with a type name of the reference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error that is a node's own already: a wrong input, an interrupt.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A tensor operation refused its operands.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A value that makes no sense, alone or beside the others.
    #[error("{0}")]
    Value(String),
    /// More memory than there is.
    #[error("{0}")]
    OutOfMemory(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path that leaves the folder it belongs in.
    #[error("{0}")]
    OutsideFolder(String),
    /// Any other failure of the crates below.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Result of a node.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A value that makes no sense.
    pub fn value(message: impl Into<String>) -> Self {
        Self::Value(message.into())
    }

    /// Any error of the crates below.
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    /// For `map_err` at file operations.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

impl From<Error> for NodeError {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Node(_) | Error::Tensor(_) | Error::Other(_) => "RuntimeError",
            Error::Value(_) => "ValueError",
            Error::OutOfMemory(_) => "torch.OutOfMemoryError",
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "FileNotFoundError"
            }
            Error::File { .. } => "OSError",
            Error::OutsideFolder(_) => "Exception",
        };
        match error {
            Error::Node(error) => error,
            Error::Other(error) => Self::from_error(&*error),
            error => Self { kind: kind.to_owned(), ..Self::from_error(&error) },
        }
    }
}
