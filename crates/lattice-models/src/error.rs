//! Why a model cannot be built from a file.

use lattice_weights::MissingTensor;

/// A file whose tensors do not make the network they seem to belong to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A tensor is missing.
    #[error(transparent)]
    Missing(#[from] MissingTensor),
    /// A tensor of another shape than the rest of the network asks for.
    #[error("{file}: tensor `{name}` has shape {found:?}, expected {expected}")]
    Shape {
        /// File the tensor comes from.
        file: String,
        /// Full tensor name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: String,
    },
    /// Sizes that are consistent but make no network, such as a width that the heads do not divide.
    #[error("{file}: {what}")]
    Invalid {
        /// File the tensors come from.
        file: String,
        /// What is wrong, naming the tensor.
        what: String,
    },
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of building (a part of) a network.
pub(crate) type Built<T> = std::result::Result<T, ModelError>;

impl From<ModelError> for candle_core::Error {
    fn from(e: ModelError) -> Self {
        match e {
            ModelError::Tensor(e) => e,
            other => candle_core::Error::wrap(other),
        }
    }
}
