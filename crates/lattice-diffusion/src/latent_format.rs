//! Latent formats: the scale between a VAE's latents and a network's, and a cheap preview.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use candle_core::{DType, Device, Result, Tensor};
use serde::Deserialize;

/// Every known format by name, measured from the reference.
static FORMATS: LazyLock<BTreeMap<String, LatentFormat>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/latent_formats.json")).expect("the table is checked by a test")
});

/// Numbers of one format. Fields are called as in published configurations.
#[derive(Clone, Debug, Deserialize)]
pub struct LatentFormat {
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Spatial axes: 2 for pictures, 3 for videos, 1 for sound.
    pub latent_dimensions: usize,
    /// Factor from the VAE's scale to the network's.
    pub scale_factor: f64,
    /// Subtracted before that.
    #[serde(default)]
    shift_factor: f64,
    /// Subtracted per channel.
    #[serde(default)]
    latents_mean: Vec<f64>,
    /// Divided by per channel.
    #[serde(default)]
    latents_std: Vec<f64>,
    /// Red, green and blue of each channel.
    #[serde(default)]
    latent_rgb_factors: Vec<[f32; 3]>,
    /// Added to them.
    #[serde(default)]
    latent_rgb_factors_bias: [f32; 3],
    /// File that decodes small previews, without its ending.
    #[serde(default)]
    pub taesd_decoder_name: Option<String>,
}

/// A small 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbPreview {
    /// Columns: latent cells.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Interleaved.
    pub rgb: Vec<u8>,
}

impl LatentFormat {
    /// The format of that name (`SD15`, `SDXL`, ...).
    pub fn named(name: &str) -> Option<&'static Self> {
        FORMATS.get(name)
    }

    /// From the VAE's scale to the network's: `(z - shift) * scale`, or `(z - mean) * scale / std` per channel.
    ///
    /// # Errors
    /// If the latent has other channels than the format.
    pub fn process_in(&self, latent: &Tensor) -> Result<Tensor> {
        match self.statistics(latent)? {
            Some((mean, std)) => (latent.broadcast_sub(&mean)? * self.scale_factor)?.broadcast_div(&std),
            None => (latent - self.shift_factor)? * self.scale_factor,
        }
    }

    /// From the network's scale to the VAE's: the inverse of [`Self::process_in`].
    ///
    /// # Errors
    /// If the latent has other channels than the format.
    pub fn process_out(&self, latent: &Tensor) -> Result<Tensor> {
        match self.statistics(latent)? {
            Some((mean, std)) => (latent.broadcast_mul(&std)? / self.scale_factor)?.broadcast_add(&mean),
            None => (latent / self.scale_factor)? + self.shift_factor,
        }
    }

    /// Mean and deviation, shaped to go with a latent [B, C, ...].
    fn statistics(&self, latent: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        if self.latents_mean.is_empty() {
            return Ok(None);
        }
        if latent.rank() < 2 || latent.dim(1)? != self.latents_mean.len() {
            candle_core::bail!(
                "a latent of shape {:?} has not {} channels",
                latent.shape(),
                self.latents_mean.len()
            )
        }
        let mut shape = vec![1; latent.rank()];
        shape[1] = self.latents_mean.len();
        let vector = |values: &[f64]| {
            Tensor::new(values, latent.device())?.to_dtype(latent.dtype())?.reshape(shape.as_slice())
        };
        Ok(Some((vector(&self.latents_mean)?, vector(&self.latents_std)?)))
    }

    /// An empty latent as the network takes it: channels repeated or cut to `channels`, and a frame axis for videos. A
    /// latent that is not zero everywhere stays as it is.
    ///
    /// # Errors
    /// If it has no channel axis.
    pub fn fit_empty(&self, latent: &Tensor, channels: usize) -> Result<Tensor> {
        let mut latent = latent.clone();
        let empty = is_empty(&latent)?;
        if empty && latent.dim(1)? != channels && latent.dim(1)? > 0 {
            let copies = vec![&latent; channels.div_ceil(latent.dim(1)?)];
            latent = Tensor::cat(&copies, 1)?.narrow(1, 0, channels)?;
        }
        if self.latent_dimensions == 3 && latent.rank() == 4 {
            latent = latent.unsqueeze(2)?;
        }
        Ok(latent)
    }

    /// The first item's first frame as a small picture: a linear map of the channels. None for formats without one.
    ///
    /// `latent` is in the network's scale, [B, C, H, W] or [B, C, T, H, W].
    ///
    /// # Errors
    /// If it has another shape.
    pub fn preview(&self, latent: &Tensor) -> Result<Option<RgbPreview>> {
        if self.latent_rgb_factors.is_empty() {
            return Ok(None);
        }
        let item = latent.get(0)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let item = if item.rank() == 4 { item.get_on_dim(1, 0)? } else { item };
        let (channels, height, width) = item.dims3()?;
        if channels != self.latent_rgb_factors.len() {
            candle_core::bail!(
                "a latent of {channels} channels is not of a format with {}",
                self.latent_rgb_factors.len()
            )
        }
        let factors =
            Tensor::from_slice(self.latent_rgb_factors.as_flattened(), (channels, 3), &Device::Cpu)?;
        let rgb = item.reshape((channels, height * width))?.t()?.contiguous()?.matmul(&factors)?;
        let rgb = rgb.broadcast_add(&Tensor::new(&self.latent_rgb_factors_bias, &Device::Cpu)?)?;
        let rgb = rgb.flatten_all()?.to_vec1::<f32>()?;
        let rgb = rgb.iter().map(|v| (f32::midpoint(*v, 1.0).clamp(0.0, 1.0) * 255.0) as u8).collect();
        Ok(Some(RgbPreview { width, height, rgb }))
    }
}

/// Whether a latent is zero everywhere: then it is no picture to start from, and is not scaled.
///
/// # Errors
/// If it is no tensor of numbers.
pub fn is_empty(latent: &Tensor) -> Result<bool> {
    let values = latent.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|&v| v == 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_complete() {
        assert!(FORMATS.len() > 20);
        for (name, format) in &*FORMATS {
            let counts =
                [format.latents_mean.len(), format.latents_std.len(), format.latent_rgb_factors.len()];
            assert!(counts.iter().all(|&n| n == 0 || n == format.latent_channels), "{name}: {counts:?}");
            assert_eq!(format.latents_mean.len(), format.latents_std.len(), "{name}");
        }
    }

    #[test]
    fn empty_latents_take_the_models_channels() {
        let format = LatentFormat::named("Flux").unwrap();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(format.fit_empty(&zeros(&[2, 4, 3, 5]), 16).unwrap().dims(), [2, 16, 3, 5]);
        assert_eq!(format.fit_empty(&zeros(&[2, 16, 3, 5]), 4).unwrap().dims(), [2, 4, 3, 5]);
        let video = LatentFormat::named("Wan21").unwrap();
        assert_eq!(video.fit_empty(&zeros(&[1, 4, 3, 5]), 16).unwrap().dims(), [1, 16, 1, 3, 5]);
        let full = (zeros(&[1, 4, 3, 5]) + 1.0).unwrap();
        assert_eq!(format.fit_empty(&full, 16).unwrap().dims(), [1, 4, 3, 5]);
    }
}
