//! Channels that are joined to the noisy latent: masks and pictures to paint in.

use candle_core::{DType, Result, Tensor};

use super::Run;
use crate::conditioning::Options;
use crate::conditioning::repeat_batch;

/// What inpainting models are shown where there is nothing to paint in: a grey picture's latent, already scaled.
const BLANK: [f32; 4] = [0.8223, -0.6876, 0.6364, 0.1380];

/// Mask and picture latent of a 9-channel inpainting model, [B, 5, h, w]. `scale` brings the option's latent into the
/// network's scale. Without a mask: ones and a blank picture.
pub(super) fn inpaint(
    options: &Options,
    run: &Run,
    scale: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let &[batch, channels, height, width] = run.shape.as_slice() else {
        candle_core::bail!("inpainting models take latents [B, C, h, w], not {:?}", run.shape)
    };
    let Some(mask) = options.concat_mask.as_ref().or(run.denoise_mask.as_ref()) else {
        let mask = Tensor::ones((batch, 1, height, width), DType::F32, &run.device)?;
        let blank: Vec<f32> = (0..channels).map(|c| BLANK[c % 4]).collect();
        let blank = Tensor::from_vec(blank, (1, channels, 1, 1), &run.device)?;
        return Tensor::cat(&[mask, blank.broadcast_as((batch, channels, height, width))?.contiguous()?], 1);
    };
    let picture = match (&options.concat_latent, &run.latent) {
        (Some(latent), _) => scale(&latent.to_device(&run.device)?)?,
        (None, Some(latent)) => latent.clone(),
        (None, None) => Tensor::zeros(run.shape.as_slice(), DType::F32, &run.device)?,
    };
    let mask = match *mask.dims() {
        [n, _, h, w] => mask.narrow(1, 0, 1)?.reshape((n, 1, h, w))?,
        [n, h, w] => mask.reshape((n, 1, h, w))?,
        _ => candle_core::bail!("a mask of shape {:?} has no rows and columns", mask.shape()),
    };
    let mask = fitted(&mask.to_device(&run.device)?, batch, height, width)?.round()?;
    Tensor::cat(&[mask, fitted(&picture, batch, height, width)?], 1)
}

/// Picture latent of an instruct model (arXiv 2211.09800), zeros without one.
pub(super) fn instruct(
    options: &Options,
    run: &Run,
    scale: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let &[batch, _, height, width] = run.shape.as_slice() else {
        candle_core::bail!("instruct models take latents [B, C, h, w], not {:?}", run.shape)
    };
    match &options.concat_latent {
        Some(latent) => fitted(&scale(&latent.to_device(&run.device)?)?, batch, height, width),
        None => Tensor::zeros(run.shape.as_slice(), DType::F32, &run.device),
    }
}

/// At the latent's batch, rows and columns.
fn fitted(t: &Tensor, batch: usize, height: usize, width: usize) -> Result<Tensor> {
    let t = t.to_dtype(DType::F32)?;
    let (_, _, h, w) = t.dims4()?;
    let t = if (h, w) == (height, width) { t } else { t.upsample_bilinear2d(height, width, false)? };
    repeat_batch(&t, batch)
}
