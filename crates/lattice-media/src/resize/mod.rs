//! Resizing of planes and images: PyTorch's interpolation modes, Pillow's 8-bit Lanczos, and spherical interpolation of
//! latents.

mod bislerp;
mod lanczos;
mod linear;

use candle_core::{Result, Tensor, bail};

/// How to compute a pixel that lies between pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Source index floor((i + 0.5) * old / new).
    NearestExact,
    /// Linear, half-pixel centres, edges repeated.
    Bilinear,
    /// Mean over the source cells that an output cell touches.
    Area,
    /// Cubic convolution (a = -0.75), half-pixel centres, edges repeated, results not clamped.
    Bicubic,
    /// Cubic convolution (a = -0.5) over as much of the source as an output pixel covers (antialiased), results not clamped.
    /// No node offers it: vision towers see pictures so.
    BicubicAntialiased,
    /// Pillow's Lanczos-3 on 8-bit samples (antialiased).
    Lanczos,
    /// Bilinear on the sphere of channel vectors, for latents.
    Bislerp,
}

impl std::str::FromStr for Method {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "nearest-exact" => Self::NearestExact,
            "bilinear" => Self::Bilinear,
            "area" => Self::Area,
            "bicubic" => Self::Bicubic,
            "lanczos" => Self::Lanczos,
            "bislerp" => Self::Bislerp,
            _ => bail!("unknown resize method {name:?}"),
        })
    }
}

/// What to do where the aspect ratios differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// Stretch.
    Disabled,
    /// Cut the source to the new aspect ratio around its centre first.
    Center,
}

impl std::str::FromStr for Crop {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "disabled" => Self::Disabled,
            "center" => Self::Center,
            _ => bail!("unknown crop {name:?}"),
        })
    }
}

/// Greatest width and height of a result, and greatest number of elements: factors come from users, and an allocation
/// that fails would end the program.
const MAX_SIDE: usize = 1 << 20;
const MAX_ELEMENTS: usize = 1 << 34;

/// Resizes planes `[B, C, H, W]` (or `[B, C, T, H, W]`, frame by frame) to `height` x `width`.
///
/// # Errors
/// If a size is zero or the memory does not suffice.
pub fn common_upscale(
    planes: &Tensor,
    width: usize,
    height: usize,
    method: Method,
    crop: Crop,
) -> Result<Tensor> {
    if let [b, c, t, h, w] = *planes.dims() {
        let frames = planes.transpose(1, 2)?.reshape((b * t, c, h, w))?;
        let frames = common_upscale(&frames, width, height, method, crop)?;
        return frames.reshape((b, t, c, height, width))?.transpose(1, 2)?.contiguous();
    }
    let (b, c, old_h, old_w) = planes.dims4()?;
    if [old_h, old_w, height, width].contains(&0) {
        bail!("cannot resize {old_w}x{old_h} pixels to {width}x{height}")
    }
    let elements = [b, c, height, width].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if width.max(height) > MAX_SIDE || elements.is_none_or(|n| n > MAX_ELEMENTS) {
        bail!("{width}x{height} pixels are too many to resize to")
    }
    let source = match crop {
        Crop::Disabled => planes.clone(),
        Crop::Center => crop_to_aspect(planes, width, height)?,
    };
    if source.elem_count() == 0 {
        return Tensor::zeros((b, c, height, width), planes.dtype(), planes.device());
    }
    match method {
        Method::NearestExact => linear::nearest_exact(&source, width, height),
        Method::Bilinear => linear::bilinear(&source, width, height),
        Method::Bicubic => linear::bicubic(&source, width, height),
        Method::BicubicAntialiased => linear::bicubic_antialiased(&source, width, height),
        Method::Area => linear::area(&source, width, height),
        Method::Lanczos => lanczos::resize(&source, width, height),
        Method::Bislerp => bislerp::resize(&source, width, height),
    }
}

/// As [`common_upscale`] for images `[B, H, W, C]`.
///
/// # Errors
/// As [`common_upscale`].
pub fn resize_images(
    images: &Tensor,
    width: usize,
    height: usize,
    method: Method,
    crop: Crop,
) -> Result<Tensor> {
    let planes = images.permute((0, 3, 1, 2))?;
    common_upscale(&planes, width, height, method, crop)?.permute((0, 2, 3, 1))?.contiguous()
}

/// As [`common_upscale`] for masks `[B, H, W]`.
///
/// # Errors
/// As [`common_upscale`].
pub fn resize_masks(
    masks: &Tensor,
    width: usize,
    height: usize,
    method: Method,
    crop: Crop,
) -> Result<Tensor> {
    common_upscale(&masks.unsqueeze(1)?, width, height, method, crop)?.squeeze(1)
}

/// Cuts equal margins off so that the aspect ratio is (nearly) `width / height`; `[.., H, W]`.
fn crop_to_aspect(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (_, _, old_h, old_w) = planes.dims4()?;
    let (old_aspect, new_aspect) = (old_w as f64 / old_h as f64, width as f64 / height as f64);
    let margin =
        |size: usize, kept: f64| ((size as f64 - size as f64 * kept) / 2.0).round_ties_even() as usize;
    let x = if old_aspect > new_aspect { margin(old_w, new_aspect / old_aspect) } else { 0 };
    let y = if old_aspect < new_aspect { margin(old_h, old_aspect / new_aspect) } else { 0 };
    if 2 * x >= old_w || 2 * y >= old_h {
        bail!("nothing is left of {old_w}x{old_h} pixels when cut to the aspect of {width}x{height}")
    }
    planes.narrow(2, y, old_h - 2 * y)?.narrow(3, x, old_w - 2 * x)
}
