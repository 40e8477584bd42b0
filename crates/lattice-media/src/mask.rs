//! Arithmetic on masks `[B, H, W]` (a mask `[H, W]` counts as a batch of one).

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::{batch, composite, morphology, tensor};

/// The mask as `[B, H, W]`.
///
/// # Errors
/// If it has fewer than two axes.
pub fn batched(mask: &Tensor) -> Result<Tensor> {
    match mask.rank() {
        0 | 1 => bail!("a mask has height and width, not the shape {:?}", mask.dims()),
        rank => mask.reshape(((), mask.dim(rank - 2)?, mask.dim(rank - 1)?)),
    }
}

/// Grows (`expand` > 0) or shrinks the selected area by that many steps of one pixel: along rows and columns only
/// (`tapered`: corners are cut), or diagonally too.
///
/// # Errors
/// If the shape is no mask's.
pub fn grow(mask: &Tensor, expand: i64, tapered: bool) -> Result<Tensor> {
    let mask = batched(mask)?;
    let steps = usize::try_from(expand.unsigned_abs()).unwrap_or(usize::MAX);
    let wins = move |a: f32, b: f32| if expand > 0 { a > b } else { a < b };
    let (b, h, w) = mask.dims3()?;
    // More steps than pixels reach nothing new.
    let steps = steps.min(h + w);
    if steps == 0 || h * w == 0 {
        return Ok(mask);
    }
    if !tapered {
        return morphology::extremum(&mask, 2 * steps + 1, wins);
    }
    let mut data = tensor::to_vec(&mask)?;
    data.par_chunks_exact_mut(h * w).for_each(|plane| {
        for _ in 0..steps {
            let old = plane.to_vec();
            for (i, out) in plane.iter_mut().enumerate() {
                let (y, x) = (i / w, i % w);
                let around = [
                    (y > 0, i.wrapping_sub(w)),
                    (y + 1 < h, i + w),
                    (x > 0, i.wrapping_sub(1)),
                    (x + 1 < w, i + 1),
                ];
                for (_, at) in around.into_iter().filter(|(inside, _)| *inside) {
                    if wins(old[at], *out) {
                        *out = old[at];
                    }
                }
            }
            if old == plane {
                break;
            }
        }
    });
    tensor::from_vec(data, (b, h, w), &mask)
}

/// Widths in pixels of the ramps at the four sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feather {
    /// Left side.
    pub left: usize,
    /// Upper side.
    pub top: usize,
    /// Right side.
    pub right: usize,
    /// Lower side.
    pub bottom: usize,
}

/// Multiplies linear ramps into the four sides. At the right and at the bottom entry `t` of the ramp lies `t` lines from
/// the end, where 0 lines from the end is the first line: the reference's slip, kept because it shows in pictures.
///
/// # Errors
/// If the shape is no mask's.
pub fn feather(mask: &Tensor, widths: Feather) -> Result<Tensor> {
    let mask = batched(mask)?;
    let (b, h, w) = mask.dims3()?;
    let factors = |n: usize, start: usize, end: usize| {
        let (start, end) = (start.min(n), end.min(n));
        let mut factors = vec![1f32; n];
        (0..start).for_each(|t| factors[t] *= (t + 1) as f32 / start as f32);
        (0..end).for_each(|t| factors[(n - t) % n] *= (t + 1) as f32 / end as f32);
        factors
    };
    let columns = Tensor::from_vec(factors(w, widths.left, widths.right), (1, 1, w), mask.device())?;
    let rows = Tensor::from_vec(factors(h, widths.top, widths.bottom), (1, h, 1), mask.device())?;
    let dtype = mask.dtype();
    mask.broadcast_mul(&columns.to_dtype(dtype)?)?.broadcast_mul(&rows.to_dtype(dtype)?)?.reshape((b, h, w))
}

/// How two masks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Product.
    Multiply,
    /// Sum.
    Add,
    /// Difference.
    Subtract,
    /// Both, after rounding.
    And,
    /// Either, after rounding.
    Or,
    /// Exactly one, after rounding.
    Xor,
}

impl std::str::FromStr for Operation {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "multiply" => Self::Multiply,
            "add" => Self::Add,
            "subtract" => Self::Subtract,
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            _ => bail!("unknown mask operation {name:?}"),
        })
    }
}

impl Operation {
    fn apply(self, a: f32, b: f32) -> f32 {
        let set = |v: f32| v.round_ties_even() != 0.0;
        match self {
            Self::Multiply => a * b,
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::And => f32::from(set(a) && set(b)),
            Self::Or => f32::from(set(a) || set(b)),
            Self::Xor => f32::from(set(a) != set(b)),
        }
    }
}

/// Combines `source`, its upper left corner at (`x`, `y`), into `destination`; the result is clamped to 0..1.
///
/// # Errors
/// If the batches are of different sizes, none of them 1.
pub fn combine(
    destination: &Tensor,
    source: &Tensor,
    x: usize,
    y: usize,
    operation: Operation,
) -> Result<Tensor> {
    let (destination, source) = (batched(destination)?, batched(source)?);
    let (_, dh, dw) = destination.dims3()?;
    let (_, sh, sw) = source.dims3()?;
    let (w, h) = (sw.min(dw.saturating_sub(x)), sh.min(dh.saturating_sub(y)));
    if w == 0 || h == 0 {
        return destination.clamp(0f32, 1f32);
    }
    let source = batch::fit(&source, destination.dim(0)?)?;
    let part = destination.narrow(1, y, h)?.narrow(2, x, w)?;
    let source = source.narrow(1, 0, h)?.narrow(2, 0, w)?;
    let values = tensor::to_vec(&part)?.into_iter().zip(tensor::to_vec(&source)?);
    let mixed = values.map(|(a, b)| operation.apply(a, b)).collect();
    let mixed = tensor::from_vec(mixed, part.dims(), &destination)?;
    composite::replace(&destination, &mixed, y, x)?.clamp(0f32, 1f32)
}

/// 1 where the mask is greater than `value`.
///
/// # Errors
/// Of tensor operations only.
pub fn threshold(mask: &Tensor, value: f64) -> Result<Tensor> {
    mask.gt(value as f32)?.to_dtype(DType::F32)
}

/// 1 where a pixel of images `[B, H, W, C]`, rounded to 8 bit, has the colour 0xRRGGBB.
///
/// # Errors
/// If the images have fewer than three channels.
pub fn of_color(images: &Tensor, color: u32) -> Result<Tensor> {
    let (b, h, w, c) = images.dims4()?;
    if c < 3 {
        bail!("images of {c} channels have no colour")
    }
    let value = |p: &[f32]| {
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u32;
        (byte(p[0]) << 16) + (byte(p[1]) << 8) + byte(p[2])
    };
    let data = tensor::to_vec(images)?;
    let mask = data.chunks_exact(c).map(|p| f32::from(value(p) == color)).collect();
    tensor::from_vec(mask, (b, h, w), images)
}

/// The rectangle from (`x`, `y`) on, cut to the mask; a start outside gives an empty mask.
///
/// # Errors
/// If the shape is no mask's.
pub fn crop(mask: &Tensor, x: usize, y: usize, width: usize, height: usize) -> Result<Tensor> {
    let mask = batched(mask)?;
    let (_, h, w) = mask.dims3()?;
    let (x, y) = (x.min(w), y.min(h));
    mask.narrow(1, y, height.min(h - y))?.narrow(2, x, width.min(w - x))?.contiguous()
}

/// Grey images `[B, H, W, 3]` of a mask.
///
/// # Errors
/// If the shape is no mask's.
pub fn to_images(mask: &Tensor) -> Result<Tensor> {
    let mask = batched(mask)?.unsqueeze(3)?;
    Tensor::cat(&[&mask, &mask, &mask], 3)
}
