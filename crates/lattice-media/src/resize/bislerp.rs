//! Bilinear interpolation along great circles of the channel vectors: latents keep their norm, which plain averaging
//! would shrink.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::linear::linear_position;
use crate::tensor;

/// See [`super::Method::Bislerp`]: planes `[B, C, H, W]`.
pub(super) fn resize(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (b, c, h, w) = planes.dims4()?;
    // Channels last, so that a pixel's vector is contiguous.
    let source = tensor::to_vec(&planes.permute((0, 2, 3, 1))?.contiguous()?)?;
    let wide = along_axis(&source, (b * h, w, 1), c, width)?;
    let full = along_axis(&wide, (b, h, width), c, height)?;
    tensor::from_vec(full, (b, height, width, c), planes)?.permute((0, 3, 1, 2))?.contiguous()
}

/// Interpolates the middle axis of `[outer, n, inner, channels]` to `new` positions.
fn along_axis(
    data: &[f32],
    (outer, n, inner): (usize, usize, usize),
    channels: usize,
    new: usize,
) -> Result<Vec<f32>> {
    let mut out = tensor::filled(&[outer, new, inner, channels], 0f32)?;
    let positions: Vec<_> = (0..new).map(|i| ramp_position(i, n, new)).collect();
    let line = inner * channels;
    out.par_chunks_exact_mut(line).enumerate().for_each(|(at, out)| {
        let (o, i) = (at / new, at % new);
        let (first, second, ratio) = positions[i];
        let a = &data[(o * n + first) * line..][..line];
        let b = &data[(o * n + second) * line..][..line];
        let vectors = a.chunks_exact(channels).zip(b.chunks_exact(channels));
        vectors.zip(out.chunks_exact_mut(channels)).for_each(|((a, b), out)| slerp(a, b, ratio, out));
    });
    Ok(out)
}

/// First and second source index and the ratio between them. The reference interpolates the index ramp 0, 1, ..., n - 1
/// linearly for the first, and the ramp 1, ..., n - 1, n - 1 for the second.
fn ramp_position(i: usize, n: usize, new: usize) -> (usize, usize, f32) {
    let (i0, i1, t) = linear_position(i, n, new);
    let mix = |a: usize, b: usize| (1.0 - t) * a as f32 + t * b as f32;
    let position = mix(i0, i1);
    let shifted = |k: usize| (k + 1).min(n - 1);
    let second = mix(shifted(i0), shifted(i1));
    let first = (position as usize).min(n - 1);
    (first, (second as usize).min(n - 1), position - first as f32)
}

/// Spherical interpolation of a and b (Shoemake, "Animating rotation with quaternion curves", 1985) with linearly
/// interpolated norm; nearly equal directions give a, nearly opposite ones a straight line.
fn slerp(a: &[f32], b: &[f32], ratio: f32, out: &mut [f32]) {
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (norm_a, norm_b) = (norm(a), norm(b));
    let unit = |v: f32, norm: f32| if norm == 0.0 { 0.0 } else { v / norm };
    let dot: f32 = a.iter().zip(b).map(|(&x, &y)| unit(x, norm_a) * unit(y, norm_b)).sum();
    if dot > 1.0 - 1e-5 {
        out.copy_from_slice(a);
    } else if dot < 1e-5 - 1.0 {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (x, y))| *o = x * (1.0 - ratio) + y * ratio);
    } else {
        let omega = dot.acos();
        let (wa, wb) = (((1.0 - ratio) * omega).sin() / omega.sin(), (ratio * omega).sin() / omega.sin());
        let norm = norm_a * (1.0 - ratio) + norm_b * ratio;
        out.iter_mut()
            .zip(a.iter().zip(b))
            .for_each(|(o, (&x, &y))| *o = (wa * unit(x, norm_a) + wb * unit(y, norm_b)) * norm);
    }
}
