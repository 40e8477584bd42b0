//! Cutting, turning, padding and joining images `[B, H, W, C]`.

use candle_core::{DType, Result, Tensor, bail};

use crate::composite::{replace, with_channels};
use crate::resize::{Crop, Method, resize_images};
use crate::{batch, tensor};

/// Turns the axes (`rows`, `rows` + 1) clockwise by quarter turns.
///
/// # Errors
/// Of tensor operations only.
pub fn rotate(t: &Tensor, rows: usize, quarter_turns: usize) -> Result<Tensor> {
    match quarter_turns % 4 {
        1 => t.transpose(rows, rows + 1)?.contiguous()?.flip(&[rows + 1])?.contiguous(),
        2 => t.flip(&[rows, rows + 1])?.contiguous(),
        3 => t.transpose(rows, rows + 1)?.contiguous()?.flip(&[rows])?.contiguous(),
        _ => Ok(t.clone()),
    }
}

/// The rectangle from (`x`, `y`) on, its corner moved inside, then cut at the border.
///
/// # Errors
/// If the images are empty.
pub fn crop(images: &Tensor, x: usize, y: usize, width: usize, height: usize) -> Result<Tensor> {
    let (_, h, w, _) = images.dims4()?;
    let (x, y) = (x.min(w.saturating_sub(1)), y.min(h.saturating_sub(1)));
    images.narrow(1, y, height.min(h - y))?.narrow(2, x, width.min(w - x))?.contiguous()
}

/// Canvas `[B, height, width, C]` of one value with the images at (`x`, `y`).
fn on_canvas(images: &Tensor, width: usize, height: usize, x: usize, y: usize, value: f32) -> Result<Tensor> {
    let (b, h, w, c) = images.dims4()?;
    if width < x + w || height < y + h {
        bail!("a canvas of {width}x{height} is too small for {w}x{h} at ({x}, {y})")
    }
    let canvas = tensor::filled(&[b, c, height, width], value)?;
    let canvas = tensor::from_vec(canvas, (b, c, height, width), images)?;
    replace(&canvas, &images.permute((0, 3, 1, 2))?, y, x)?.permute((0, 2, 3, 1))?.contiguous()
}

/// Fits the images into `width` x `height` with their aspect kept, centred on a canvas of one value.
///
/// # Errors
/// If a side of the target or of the shrunk images is zero.
pub fn resize_and_pad(
    images: &Tensor,
    width: usize,
    height: usize,
    value: f32,
    method: Method,
) -> Result<Tensor> {
    let (_, h, w, _) = images.dims4()?;
    if w == 0 || h == 0 {
        bail!("cannot resize {w}x{h} pixels")
    }
    let scale = (width as f64 / w as f64).min(height as f64 / h as f64);
    let (new_w, new_h) = ((w as f64 * scale) as usize, (h as f64 * scale) as usize);
    let images = resize_images(images, new_w, new_h, method, Crop::Disabled)?;
    let (x, y) = (width.saturating_sub(new_w) / 2, height.saturating_sub(new_h) / 2);
    on_canvas(&images, width, height, x, y, value)
}

/// Side of the first image that the second is joined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// First, second.
    Right,
    /// First over second.
    Down,
    /// Second, first.
    Left,
    /// Second over first.
    Up,
}

/// Joins two images with a bar of `spacing` pixels (made even) of an RGB colour between them. The second is resized
/// (Lanczos, aspect kept) to the height or width of the first if `match_size`; else the smaller one is centred on white where
/// the colour is white and on black otherwise.
/// The shorter batch repeats its last image; missing alpha channels are opaque.
///
/// # Errors
/// If an image is empty.
pub fn stitch(
    first: &Tensor,
    second: &Tensor,
    side: Side,
    match_size: bool,
    spacing: usize,
    color: [f32; 3],
) -> Result<Tensor> {
    let n = first.dim(0)?.max(second.dim(0)?);
    let (mut first, mut second) = (batch::extend_last(first, n)?, batch::extend_last(second, n)?);
    let horizontal = matches!(side, Side::Left | Side::Right);
    let (_, h1, w1, _) = first.dims4()?;
    let (_, h2, w2, _) = second.dims4()?;
    if match_size {
        if w2 == 0 || h2 == 0 {
            bail!("cannot resize {w2}x{h2} pixels")
        }
        let aspect = w2 as f64 / h2 as f64;
        let (w, h) = if horizontal {
            ((h1 as f64 * aspect) as usize, h1)
        } else {
            (w1, (w1 as f64 / aspect) as usize)
        };
        second = resize_images(&second, w, h, Method::Lanczos, Crop::Disabled)?;
    } else {
        let margin = if color == [1.0; 3] { 1.0 } else { 0.0 };
        let center = |t: &Tensor, h: usize, w: usize| -> Result<Tensor> {
            let (width, height) = if horizontal { (w, h1.max(h2)) } else { (w1.max(w2), h) };
            on_canvas(t, width, height, (width - w) / 2, (height - h) / 2, margin)
        };
        (first, second) = (center(&first, h1, w1)?, center(&second, h2, w2)?);
    }
    let channels = first.dim(3)?.max(second.dim(3)?);
    (first, second) = (with_channels(&first, channels)?, with_channels(&second, channels)?);
    let axis = if horizontal { 2 } else { 1 };
    let mut parts = match side {
        Side::Right | Side::Down => vec![first, second],
        Side::Left | Side::Up => vec![second, first],
    };
    if spacing > 0 {
        let mut shape = parts[0].dims().to_vec();
        shape[axis] = spacing + spacing % 2;
        let bar: Vec<f32> = (0..channels).map(|c| color.get(c).copied().unwrap_or(1.0)).collect();
        let bar = Tensor::from_vec(bar, channels, parts[0].device())?.to_dtype(parts[0].dtype())?;
        parts.insert(1, bar.broadcast_as(shape)?.contiguous()?);
    }
    Tensor::cat(&parts, axis)
}

/// Pixels added at the four sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Padding {
    /// Left side.
    pub left: usize,
    /// Upper side.
    pub top: usize,
    /// Right side.
    pub right: usize,
    /// Lower side.
    pub bottom: usize,
}

/// Adds grey margins to be painted. The mask `[1, H, W]` is 1 there and falls off to 0 over `feathering` pixels inside,
/// away from the sides that were padded, if there is room for that.
///
/// # Errors
/// If the memory does not suffice.
pub fn pad_for_outpaint(images: &Tensor, padding: Padding, feathering: usize) -> Result<(Tensor, Tensor)> {
    let (_, h, w, _) = images.dims4()?;
    let (width, height) = (padding.left + w + padding.right, padding.top + h + padding.bottom);
    let canvas = on_canvas(images, width, height, padding.left, padding.top, 0.5)?;
    let mut mask = tensor::filled(&[height, width], 1f32)?;
    let feathered = feathering > 0 && 2 * feathering < h && 2 * feathering < w;
    for i in 0..h {
        for j in 0..w {
            let at = (padding.top + i) * width + padding.left + j;
            mask[at] = 0.0;
            if feathered {
                let far =
                    |padded: usize, distance: usize, size: usize| if padded > 0 { distance } else { size };
                let rows = far(padding.top, i, h).min(far(padding.bottom, h - i, h));
                let columns = far(padding.left, j, w).min(far(padding.right, w - j, w));
                let inside = feathering.saturating_sub(rows.min(columns));
                mask[at] = (inside as f64 / feathering as f64).powi(2) as f32;
            }
        }
    }
    let mask = Tensor::from_vec(mask, (1, height, width), images.device())?.to_dtype(DType::F32)?;
    Ok((canvas, mask))
}
