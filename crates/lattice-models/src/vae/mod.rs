//! Autoencoders between pictures and latents.

mod kl;
mod taesd;

use candle_core::{Result, Tensor};

pub use kl::{AutoencoderKl, KlConfig};
pub use taesd::Taesd;

/// An autoencoder. Pictures are [B, 3, H, W] in -1..1, latents in the scale of the file (before the latent format's).
pub trait Vae: Send + Sync {
    /// Channels of a latent.
    fn latent_channels(&self) -> usize;

    /// Pixels per latent cell along each axis.
    fn spatial_factor(&self) -> usize;

    /// Frames per latent frame; 1 for pictures.
    fn temporal_factor(&self) -> usize {
        1
    }

    /// Mean of the encoder's distribution. H and W must be multiples of the spatial factor.
    ///
    /// # Errors
    /// If the shape does not fit, or the file holds no encoder.
    fn encode_mean(&self, image: &Tensor) -> Result<Tensor>;

    /// The picture of a latent, not clamped.
    ///
    /// # Errors
    /// If the shape does not fit, or the file holds no decoder.
    fn decode(&self, latent: &Tensor) -> Result<Tensor>;
}
