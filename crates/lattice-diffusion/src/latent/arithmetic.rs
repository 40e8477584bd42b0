//! Mixing, cutting and joining latents.

use candle_core::{Device, Result, Tensor, bail};
use lattice_media::batch;
use lattice_media::composite::replace;
use lattice_media::resize::{Crop, Method, common_upscale};

/// `latent` with the size and batch of `like`: resized (bilinear, centre crop), then repeated or cut.
///
/// # Errors
/// If the latent is empty.
pub fn fit_to(latent: &Tensor, like: &Tensor) -> Result<Tensor> {
    batch::fit(&resized_to(latent, like)?, like.dim(0)?)
}

/// `latent` with the size of `like`: resized (bilinear, centre crop).
///
/// # Errors
/// If the latent is empty.
pub fn resized_to(latent: &Tensor, like: &Tensor) -> Result<Tensor> {
    sized(latent, like, Method::Bilinear)
}

/// `latent` with the height and width of `like`.
fn sized(latent: &Tensor, like: &Tensor, method: Method) -> Result<Tensor> {
    let [.., h, w] = *like.dims() else { bail!("a latent has height and width") };
    if latent.dims()[1..] == like.dims()[1..] {
        return Ok(latent.clone());
    }
    common_upscale(latent, w, h, method, Crop::Center)
}

/// first + second, the second fitted to the first.
///
/// # Errors
/// If the channels differ.
pub fn add(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    first.broadcast_add(&fit_to(second, first)?)
}

/// first - second, the second fitted to the first.
///
/// # Errors
/// If the channels differ.
pub fn subtract(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    first.broadcast_sub(&fit_to(second, first)?)
}

/// first k + second (1 - k), the second resized (bicubic, centre crop) to the first.
///
/// # Errors
/// If channels or batches do not go together.
pub fn blend(first: &Tensor, second: &Tensor, k: f64) -> Result<Tensor> {
    let second =
        if first.dims() == second.dims() { second.clone() } else { sized(second, first, Method::Bicubic)? };
    (first * k)?.broadcast_add(&(second * (1.0 - k))?)
}

/// Blends directions and lengths of the channel vectors apart: the direction of u1 r + u2 (1 - r) with the length
/// m1 r + m2 (1 - r).
///
/// The reference's lengths have lost their channel axis, so that broadcasting aligns their batch with the channels: with
/// as many items as channels, channel i is divided by the lengths of item i. That is kept; where the sizes do not allow
/// it (and the reference fails) every item is divided by its own lengths.
///
/// # Errors
/// If the channels differ.
pub fn interpolate(first: &Tensor, second: &Tensor, ratio: f64) -> Result<Tensor> {
    let second = fit_to(second, first)?;
    let (items, channels) = (first.dim(0)?, first.dim(1)?);
    let aligned = items == 1 || items == channels;
    let length = |t: &Tensor| {
        let sum = t.sqr()?;
        if aligned { sum.sum(1)?.sqrt() } else { sum.sum_keepdim(1)?.sqrt() }
    };
    let unit = |t: &Tensor, length: &Tensor| {
        let unit = t.broadcast_div(length)?;
        // 0 / 0: a zero vector has no direction.
        unit.eq(&unit)?.where_cond(&unit, &unit.zeros_like()?)
    };
    let (m1, m2) = (length(first)?, length(&second)?);
    let mixed = ((unit(first, &m1)? * ratio)? + (unit(&second, &m2)? * (1.0 - ratio))?)?;
    let direction = unit(&mixed, &length(&mixed)?)?;
    direction.broadcast_mul(&((m1 * ratio)? + (m2 * (1.0 - ratio))?)?)
}

/// Pastes `from` onto `to` at (`x`, `y`), cut to it. With a `feather` of F > 0 the sides that lie inside fade over F
/// cells.
///
/// # Errors
/// If channels or batches do not go together.
pub fn composite(to: &Tensor, from: &Tensor, x: usize, y: usize, feather: usize) -> Result<Tensor> {
    let (_, _, to_h, to_w) = to.dims4()?;
    let (_, _, from_h, from_w) = from.dims4()?;
    let (w, h) = (from_w.min(to_w.saturating_sub(x)), from_h.min(to_h.saturating_sub(y)));
    if w == 0 || h == 0 {
        return Ok(to.clone());
    }
    let over = batch::fit(&from.narrow(2, 0, h)?.narrow(3, 0, w)?, to.dim(0)?)?;
    let mixed = if feather == 0 {
        over
    } else {
        // The ramps lie on the whole source, of which only the part inside is pasted.
        let ramp = |n: usize, shown: usize, start: bool, end: bool| {
            let mut factors = vec![1f32; n];
            for t in 0..feather.min(n) {
                let factor = (t + 1) as f32 / feather as f32;
                factors[t] *= if start { factor } else { 1.0 };
                factors[n - 1 - t] *= if end { factor } else { 1.0 };
            }
            factors.truncate(shown);
            factors
        };
        let columns = ramp(from_w, w, x != 0, x + from_w < to_w);
        let rows = ramp(from_h, h, y != 0, y + from_h < to_h);
        let mask: Vec<f32> = rows.iter().flat_map(|r| columns.iter().map(move |c| r * c)).collect();
        let mask = Tensor::from_vec(mask, (1, 1, h, w), &Device::Cpu)?;
        let mask = mask.to_device(to.device())?.to_dtype(to.dtype())?;
        let under = to.narrow(2, y, h)?.narrow(3, x, w)?;
        (over.broadcast_mul(&mask)? + under.broadcast_mul(&mask.affine(-1.0, 1.0)?)?)?
    };
    replace(to, &mixed, y, x)
}

/// An axis of a latent, counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Columns.
    X,
    /// Rows.
    Y,
    /// Frames.
    T,
}

impl Axis {
    fn of(self, latent: &Tensor) -> Result<usize> {
        let from_end = match self {
            Self::X => 1,
            Self::Y => 2,
            Self::T => 3,
        };
        match latent.rank().checked_sub(from_end) {
            Some(axis) => Ok(axis),
            None => bail!("a latent of shape {:?} has no axis {self:?}", latent.dims()),
        }
    }
}

/// Joins two latents along an axis, the second with the batch of the first.
///
/// # Errors
/// If the other sizes differ.
pub fn concat(first: &Tensor, second: &Tensor, axis: Axis, second_leads: bool) -> Result<Tensor> {
    let second = batch::fit(second, first.dim(0)?)?;
    let parts = if second_leads { [&second, first] } else { [first, &second] };
    Tensor::cat(&parts, axis.of(first)?)
}

/// `amount` cells from `index` on along an axis, cut to what exists; a negative index counts from the end.
///
/// # Errors
/// Of tensor operations only.
pub fn cut(latent: &Tensor, axis: Axis, index: i64, amount: usize) -> Result<Tensor> {
    let axis = axis.of(latent)?;
    let size = latent.dim(axis)?;
    let offset = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    let start = if index >= 0 { offset.min(size.saturating_sub(1)) } else { size - offset.min(size) };
    latent.narrow(axis, start, amount.min(size - start))
}

/// A rectangle whose corner leaves at least 8 cells, cut at the border.
///
/// # Errors
/// Of tensor operations only.
pub fn crop(latent: &Tensor, x: usize, y: usize, width: usize, height: usize) -> Result<Tensor> {
    let rank = latent.rank();
    if rank < 2 {
        bail!("a latent has height and width, not the shape {:?}", latent.dims())
    }
    let (h, w) = (latent.dim(rank - 2)?, latent.dim(rank - 1)?);
    let (x, y) = (x.min(w.saturating_sub(8)), y.min(h.saturating_sub(8)));
    latent.narrow(rank - 2, y, height.min(h - y))?.narrow(rank - 1, x, width.min(w - x))
}

/// Noise indices of a batch repeated `amount` times: each repetition goes on where the one before ended.
pub fn repeat_index(index: &[usize], amount: usize) -> Vec<usize> {
    let (low, high) = (index.iter().min().copied().unwrap_or(0), index.iter().max().copied().unwrap_or(0));
    let offset = high - low + 1;
    (0..amount).flat_map(|k| index.iter().map(move |i| i + k * offset)).collect()
}
