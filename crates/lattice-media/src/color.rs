//! Colour spaces.

use candle_core::{Result, Tensor, bail};

use crate::{batch, tensor};

/// Luma and chroma (BT.601, full range, chroma around 0.5) of images `[B, H, W, C]`, each as grey images of 3 channels.
///
/// # Errors
/// If the images have fewer than three channels.
pub fn rgb_to_yuv(images: &Tensor) -> Result<[Tensor; 3]> {
    let (b, h, w, c) = images.dims4()?;
    if c < 3 {
        bail!("images of {c} channels have no colour")
    }
    let data = tensor::to_vec(images)?;
    let luma = |p: &[f32]| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
    let gray = |f: &dyn Fn(&[f32]) -> f32| {
        let values = data.chunks_exact(c).flat_map(|p| [f(p); 3]).collect();
        tensor::from_vec(values, (b, h, w, 3), images)
    };
    Ok([gray(&luma)?, gray(&|p| (p[2] - luma(p)) * 0.564 + 0.5)?, gray(&|p| (p[0] - luma(p)) * 0.713 + 0.5)?])
}

/// The inverse of [`rgb_to_yuv`]; each input counts by the mean of its channels, and the result is clamped to 0..1.
///
/// # Errors
/// If the sizes differ.
pub fn yuv_to_rgb(y: &Tensor, u: &Tensor, v: &Tensor) -> Result<Tensor> {
    let gray = |t: &Tensor| t.mean_keepdim(3);
    let (y, u) = batch::common(&gray(y)?, &gray(u)?)?;
    let (y, v) = batch::common(&y, &gray(v)?)?;
    let u = batch::fit(&u, y.dim(0)?)?;
    let (u, v) = ((u - 0.5)?, (v - 0.5)?);
    let red = (&y + (&v * 1.403)?)?;
    let green = ((&y - (&v * 0.714)?)? - (&u * 0.344)?)?;
    let blue = (&y + (&u * 1.773)?)?;
    Tensor::cat(&[red, green, blue], 3)?.clamp(0f32, 1f32)
}
