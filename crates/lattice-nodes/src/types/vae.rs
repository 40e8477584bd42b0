//! Autoencoders between pictures and latents.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use lattice_diffusion::conditioning::HintEncoder;
use lattice_kernels::on_pool;
use lattice_models::detect::VaePart;
use lattice_weights::StateDict;

use super::placed::{blame, is_finite};
use crate::node::GraphType;

/// A VAE. Its weights are mapped or shared, so a copy costs nothing.
#[derive(Clone)]
pub struct Vae {
    network: Arc<dyn lattice_models::Vae>,
    /// Weights without prefix; a VAE that is not from a file has none.
    pub weights: Option<StateDict>,
}

impl GraphType for Vae {
    const NAME: &'static str = "VAE";
}

impl From<&VaePart> for Vae {
    fn from(part: &VaePart) -> Self {
        Self { network: part.vae.clone(), weights: Some(part.weights.clone()) }
    }
}

impl Vae {
    /// An autoencoder that cannot be saved.
    pub fn without_weights(network: impl lattice_models::Vae + 'static) -> Self {
        Self { network: Arc::new(network), weights: None }
    }

    /// The VAE of models that work on pixels.
    pub fn pixel_space() -> Self {
        Self::without_weights(PixelSpace)
    }

    /// The autoencoder itself.
    pub fn network(&self) -> &dyn lattice_models::Vae {
        &*self.network
    }

    /// The autoencoder's encoder by itself.
    pub fn encode_mean(&self, planes: &Tensor) -> Result<Tensor> {
        on_pool(|| self.network.encode_mean(planes))
    }

    /// The autoencoder's decoder by itself.
    pub fn decode_planes(&self, latent: &Tensor) -> Result<Tensor> {
        on_pool(|| self.network.decode(latent))
    }

    /// The latent of pictures [B, H, W, C]: alpha is dropped, and what exceeds a multiple of the spatial factor is cut
    /// off around the centre. Result [B, C, h, w] in the scale of the file.
    ///
    /// Pictures are encoded one by one: the result is the same and the working memory that of one.
    ///
    /// # Errors
    /// If a side is smaller than the spatial factor, or the file holds no encoder.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        self.encode_planes(&self.planes(images)?)
    }

    /// Planes [B, 3, H, W] in -1..1 of pictures [B, H, W, C], cut to multiples of the spatial factor.
    pub fn planes(&self, images: &Tensor) -> Result<Tensor> {
        let images = crop_to_multiple(images, self.network.spatial_factor())?;
        let channels = images.dim(3)?;
        let rgb = if channels > 3 { images.narrow(3, 0, 3)? } else { images };
        rgb.permute((0, 3, 1, 2))?.affine(2.0, -1.0)?.contiguous()
    }

    /// The latent of planes [B, 3, H, W] in -1..1.
    pub fn encode_planes(&self, planes: &Tensor) -> Result<Tensor> {
        each(planes, |picture| self.encode_mean(picture))
    }

    /// The pictures [B, H, W, 3] of a latent. Frames of videos become pictures of the batch.
    ///
    /// # Errors
    /// If the shape does not fit, or the file holds no decoder.
    pub fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        let planes = each(latent, |item| self.decode_planes(item))?;
        if let Some(weights) = &self.weights
            && !is_finite(&planes)?
            && is_finite(latent)?
        {
            blame(weights)?;
        }
        self.pictures(&planes)
    }

    /// Pictures [B, H, W, 3] in 0..1 of decoded planes [B, 3, H, W] (or [B, 3, T, H, W]) in -1..1.
    pub fn pictures(&self, planes: &Tensor) -> Result<Tensor> {
        let pictures = planes.affine(0.5, 0.5)?.clamp(0f32, 1f32)?;
        match pictures.rank() {
            5 => pictures.permute((0, 2, 3, 4, 1))?.flatten(0, 1)?.contiguous(),
            _ => pictures.permute((0, 2, 3, 1))?.contiguous(),
        }
    }
}

impl HintEncoder for Vae {
    fn spatial_factor(&self) -> usize {
        self.network.spatial_factor()
    }

    fn encode(&self, planes: &Tensor) -> Result<Tensor> {
        self.encode_planes(&planes.affine(2.0, -1.0)?)
    }
}

/// Cuts pictures [B, H, W, C] around the centre so that both sides are multiples of `factor`.
pub fn crop_to_multiple(images: &Tensor, factor: usize) -> Result<Tensor> {
    let (_, height, width, _) = images.dims4()?;
    let factor = factor.max(1);
    let (h, w) = (height / factor * factor, width / factor * factor);
    if h == 0 || w == 0 {
        candle_core::bail!(
            "a picture of {width}x{height} pixels is smaller than one latent cell of {factor}x{factor}"
        )
    }
    images.narrow(1, (height - h) / 2, h)?.narrow(2, (width - w) / 2, w)
}

/// Applies a function to the items of a batch one by one.
fn each(batch: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let items = (0..batch.dim(0)?).map(|i| f(&batch.narrow(0, i, 1)?)).collect::<Result<Vec<_>>>()?;
    match items.as_slice() {
        [one] => Ok(one.clone()),
        items => Tensor::cat(items, 0),
    }
}

/// The VAE of models that work on pixels: a latent is the picture itself.
struct PixelSpace;

impl lattice_models::Vae for PixelSpace {
    fn latent_channels(&self) -> usize {
        3
    }

    fn spatial_factor(&self) -> usize {
        1
    }

    fn encode_mean(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.clone())
    }

    fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(latent.clone())
    }
}
