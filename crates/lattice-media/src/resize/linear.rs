//! The interpolation modes of PyTorch, on planes `[B, C, H, W]`. Source positions are computed in f32 as there, since
//! the choice of a source pixel may hang on the last bit.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::tensor;

/// Source pixels and weights of one output row or column.
struct Taps {
    /// (source index, weight).
    taps: Vec<(usize, f32)>,
}

/// See [`super::Method::NearestExact`].
pub(super) fn nearest_exact(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let index = |old: usize, new: usize| -> Vec<usize> {
        let scale = old as f32 / new as f32;
        (0..new).map(|i| (((i as f32 + 0.5) * scale) as usize).min(old - 1)).collect()
    };
    let (_, _, h, w) = planes.dims4()?;
    let (rows, columns) = (index(h, height), index(w, width));
    each_plane(planes, width, height, |source, out| {
        for (&y, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            let row = &source[y * w..(y + 1) * w];
            out.iter_mut().zip(&columns).for_each(|(o, &x)| *o = row[x]);
        }
    })
}

/// See [`super::Method::Bilinear`].
pub(super) fn bilinear(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let taps = |old: usize, new: usize| -> Vec<Taps> {
        (0..new)
            .map(|i| {
                let (i0, i1, ratio) = linear_position(i, old, new);
                Taps { taps: vec![(i0, 1.0 - ratio), (i1, ratio)] }
            })
            .collect()
    };
    separable(planes, width, height, taps)
}

/// Source index, its successor and the weight of the successor, for half-pixel centres.
pub(super) fn linear_position(i: usize, old: usize, new: usize) -> (usize, usize, f32) {
    let scale = old as f32 / new as f32;
    let position = if old == new { i as f32 } else { (scale * (i as f32 + 0.5) - 0.5).max(0.0) };
    let i0 = (position as usize).min(old - 1);
    (i0, (i0 + 1).min(old - 1), (position - i0 as f32).clamp(0.0, 1.0))
}

/// See [`super::Method::Bicubic`].
pub(super) fn bicubic(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    const A: f32 = -0.75;
    let near = |d: f32| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f32| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    let taps = |old: usize, new: usize| -> Vec<Taps> {
        let scale = old as f32 / new as f32;
        (0..new)
            .map(|i| {
                let position = if old == new { i as f32 } else { scale * (i as f32 + 0.5) - 0.5 };
                let (start, d) = (position.floor(), position - position.floor());
                let weights = [far(d + 1.0), near(d), near(1.0 - d), far(2.0 - d)];
                let clamped =
                    |k: usize| (start as isize + k as isize - 1).clamp(0, old as isize - 1) as usize;
                Taps { taps: weights.into_iter().enumerate().map(|(k, w)| (clamped(k), w)).collect() }
            })
            .collect()
    };
    separable(planes, width, height, taps)
}

/// See [`super::Method::BicubicAntialiased`].
pub(super) fn bicubic_antialiased(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    const A: f32 = -0.5;
    // Rounded as the reference does: results are rounded to 8 bits, where the last bit decides between two levels.
    let cubic = |d: f32| match d.abs() {
        d if d < 1.0 => ((A + 2.0).mul_add(d, -(A + 3.0)) * d).mul_add(d, 1.0),
        d if d < 2.0 => (d - 5.0).mul_add(d, 8.0).mul_add(d, -4.0) * A,
        _ => 0.0,
    };
    let taps = |old: usize, new: usize| -> Vec<Taps> {
        let scale = old as f32 / new as f32;
        // Where the picture grows the kernel keeps its width.
        let stretch = scale.max(1.0);
        (0..new)
            .map(|i| {
                let (centre, support) = (scale * (i as f32 + 0.5), 2.0 * stretch);
                let start = (centre - support + 0.5).max(0.0) as usize;
                let end = ((centre + support + 0.5) as usize).clamp(start + 1, old.max(start + 1));
                let weights = (start..end).map(|x| cubic((x as f32 - centre + 0.5) * (1.0 / stretch)));
                let total: f32 = weights.clone().sum();
                let taps = weights.map(|w| w / total);
                Taps { taps: (start..).map(|x| x.min(old - 1)).zip(taps).collect() }
            })
            .collect()
    };
    separable(planes, width, height, taps)
}

/// See [`super::Method::Area`].
pub(super) fn area(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (_, _, h, w) = planes.dims4()?;
    let range = |i: usize, old: usize, new: usize| (i * old / new)..((i + 1) * old).div_ceil(new);
    each_plane(planes, width, height, |source, out| {
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let rows = range(y, h, height);
            for (x, out) in out.iter_mut().enumerate() {
                let columns = range(x, w, width);
                let sum: f32 = rows.clone().flat_map(|r| &source[r * w..][columns.clone()]).sum();
                *out = sum / (rows.len() * columns.len()) as f32;
            }
        }
    })
}

/// Weighted sums along the columns, then along the rows; `taps(old, new)` gives those of one axis.
fn separable(
    planes: &Tensor,
    width: usize,
    height: usize,
    taps: impl Fn(usize, usize) -> Vec<Taps>,
) -> Result<Tensor> {
    let (_, _, h, w) = planes.dims4()?;
    let (columns, rows) = (taps(w, width), taps(h, height));
    // Where the picture shrinks, rows that no output row reads are not computed.
    let mut used = vec![false; h];
    rows.iter().flat_map(|r| &r.taps).for_each(|&(y, _)| used[y] = true);
    each_plane(planes, width, height, |source, out| {
        let mut wide = vec![0f32; h * width];
        for (y, wide) in wide.chunks_exact_mut(width).enumerate().filter(|(y, _)| used[*y]) {
            let row = &source[y * w..(y + 1) * w];
            for (o, c) in wide.iter_mut().zip(&columns) {
                *o = c.taps.iter().map(|&(x, weight)| weight * row[x]).sum();
            }
        }
        for (out, r) in out.chunks_exact_mut(width).zip(&rows) {
            for &(y, weight) in &r.taps {
                out.iter_mut().zip(&wide[y * width..]).for_each(|(o, v)| *o += weight * v);
            }
        }
    })
}

/// Computes every output plane (zeros at first) from its source plane, in parallel.
pub(super) fn each_plane(
    planes: &Tensor,
    width: usize,
    height: usize,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) -> Result<Tensor> {
    let (b, c, h, w) = planes.dims4()?;
    let source = tensor::to_vec(planes)?;
    let mut out = tensor::filled(&[b, c, height, width], 0f32)?;
    out.par_chunks_exact_mut(height * width)
        .zip(source.par_chunks_exact(h * w))
        .for_each(|(out, source)| f(source, out));
    tensor::from_vec(out, (b, c, height, width), planes)
}
