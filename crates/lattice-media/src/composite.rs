//! Pasting planes and images onto others.

use candle_core::{Result, Tensor};

use crate::batch;
use crate::resize::{Crop, Method, common_upscale};

/// Where and how a source is pasted.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Left edge in pixels; may be negative.
    pub x: i64,
    /// Upper edge in pixels; may be negative.
    pub y: i64,
    /// Pixels per cell: 8 for latents, 1 for images.
    pub unit: i64,
    /// Whether the source is first resized (bilinearly) to the destination.
    pub resize_source: bool,
}

/// Pastes `source` onto `destination`, both `[B, C, H, W]`; what lies outside is cut. A mask `[B, h, w]`, resized to the
/// source, says how much of the source shows; without one it is opaque.
///
/// # Errors
/// If the channels differ.
pub fn paste(destination: &Tensor, source: &Tensor, mask: Option<&Tensor>, at: Placement) -> Result<Tensor> {
    let (b, _, dh, dw) = destination.dims4()?;
    let source = if at.resize_source {
        common_upscale(source, dw, dh, Method::Bilinear, Crop::Disabled)?
    } else {
        source.clone()
    };
    let source = batch::fit(&source, b)?;
    let (_, _, sh, sw) = source.dims4()?;
    let cell = |v: i64, source: usize, size: usize| {
        v.clamp(-(source as i64) * at.unit, size as i64 * at.unit).div_euclid(at.unit)
    };
    let (Some(columns), Some(rows)) =
        (Overlap::new(cell(at.x, sw, dw), sw, dw), Overlap::new(cell(at.y, sh, dh), sh, dh))
    else {
        return Ok(destination.clone());
    };
    let shown = |t: &Tensor| t.narrow(2, rows.source, rows.length)?.narrow(3, columns.source, columns.length);
    let under = destination.narrow(2, rows.destination, rows.length)?.narrow(
        3,
        columns.destination,
        columns.length,
    )?;
    let over = shown(&source)?;
    let mixed = match mask {
        None => over,
        Some(mask) => {
            let mask = mask.reshape(((), 1, mask.dim(mask.rank() - 2)?, mask.dim(mask.rank() - 1)?))?;
            let mask = common_upscale(&mask, sw, sh, Method::Bilinear, Crop::Disabled)?;
            let mask = shown(&batch::fit(&mask, b)?)?.to_dtype(destination.dtype())?;
            let rest = mask.affine(-1.0, 1.0)?;
            (over.broadcast_mul(&mask)? + under.broadcast_mul(&rest)?)?
        }
    };
    replace(destination, &mixed, rows.destination, columns.destination)
}

/// `destination` `[.., H, W]` with the cells from (`y`, `x`) on replaced by `part`, which must lie inside.
///
/// # Errors
/// If the shapes do not fit.
pub fn replace(destination: &Tensor, part: &Tensor, y: usize, x: usize) -> Result<Tensor> {
    let rank = destination.rank();
    let (h, w) = (part.dim(rank - 2)?, part.dim(rank - 1)?);
    let rows = destination.narrow(rank - 2, y, h)?;
    let right = rows.dim(rank - 1)?.saturating_sub(x + w);
    let rows =
        Tensor::cat(&[&rows.narrow(rank - 1, 0, x)?, part, &rows.narrow(rank - 1, x + w, right)?], rank - 1)?;
    let below = destination.dim(rank - 2)?.saturating_sub(y + h);
    let (above, below) = (destination.narrow(rank - 2, 0, y)?, destination.narrow(rank - 2, y + h, below)?);
    Tensor::cat(&[&above, &rows, &below], rank - 2)
}

/// Overlap of a source and a destination along one axis.
struct Overlap {
    source: usize,
    destination: usize,
    length: usize,
}

impl Overlap {
    /// Of a source of `source` cells at `at` with a destination of `size` cells; None if they do not touch.
    fn new(at: i64, source: usize, size: usize) -> Option<Self> {
        let (start, end) = (at.max(0), (at + source as i64).min(size as i64));
        let length = usize::try_from(end - start).ok().filter(|&n| n > 0)?;
        Some(Self { source: (start - at) as usize, destination: start as usize, length })
    }
}

/// Pastes images `[B, H, W, C]`. A destination with fewer channels cuts those of the source; a source with fewer gets
/// an opaque alpha channel.
///
/// # Errors
/// As [`paste`].
pub fn paste_images(
    destination: &Tensor,
    source: &Tensor,
    mask: Option<&Tensor>,
    at: Placement,
) -> Result<Tensor> {
    let channels = destination.dim(3)?;
    let source = with_channels(&source.to_dtype(destination.dtype())?, channels)?;
    let planes = |t: &Tensor| t.permute((0, 3, 1, 2));
    paste(&planes(destination)?, &planes(&source)?, mask, at)?.permute((0, 2, 3, 1))?.contiguous()
}

/// Images with exactly `channels` channels: cut, or ones (opaque alpha) added.
///
/// # Errors
/// Of tensor operations only.
pub fn with_channels(images: &Tensor, channels: usize) -> Result<Tensor> {
    let (b, h, w, c) = images.dims4()?;
    if c >= channels {
        return images.narrow(3, 0, channels);
    }
    let ones = Tensor::ones((b, h, w, channels - c), images.dtype(), images.device())?;
    Tensor::cat(&[images, &ones], 3)
}
