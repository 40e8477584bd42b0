//! What a model file holds: the family of its diffusion network, its text encoders and its VAE, told by the names and
//! shapes of its tensors and built without reading them.

mod facts;
mod parts;
mod signature;
mod stable_diffusion;

pub use facts::{Family, LatentFormat, ModelSpec, PictureStatistics, Prediction, Schedule};
pub use parts::{Checkpoint, DiffusionPart, TextEncoderKind, TextPart, VaePart};

use crate::ModelError;

/// A file that holds no network this program knows, or a broken one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// A known network with missing or misshapen tensors.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No known network.
    #[error("{file}: holds no known {wanted}{}", recognised.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Unknown {
        /// File.
        file: String,
        /// What was looked for.
        wanted: &'static str,
        /// What was found instead, with the nearest family.
        recognised: Option<String>,
    },
    /// A known network that cannot be run.
    #[error("{file}: is {network}, which is not supported yet")]
    Unsupported {
        /// File.
        file: String,
        /// What it is.
        network: String,
    },
}
