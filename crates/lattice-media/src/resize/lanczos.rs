//! Pillow's LANCZOS on 8-bit samples, exact to the bit.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::{pixels::to_u8, tensor};

/// Bits after the binary point of the integer weights.
const PRECISION: u32 = 22;

/// Weights of one output pixel.
struct Taps {
    /// First source pixel.
    start: usize,
    /// Multiples of 2^-22 for it and those after it.
    weights: Vec<i64>,
}

/// See [`super::Method::Lanczos`]: planes `[B, C, H, W]` in 0..1.
pub(super) fn resize(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (b, c, h, w) = planes.dims4()?;
    let source = tensor::to_vec(planes)?;
    let mut out = tensor::filled(&[b, c, height, width], 0f32)?;
    let (columns, rows) = (taps(w, width), taps(h, height));
    let unchanged = (h, w) == (height, width);
    let pairs = out.chunks_exact_mut(c * height * width).zip(source.chunks_exact(c * h * w));
    pairs.for_each(|(out, source)| {
        let mut planes: Vec<Vec<u8>> =
            source.chunks_exact(h * w).map(|p| p.iter().copied().map(to_u8).collect()).collect();
        // Transparent pixels must not bleed their colour: it is weighted by alpha meanwhile.
        let premultiply = c == 4 && !unchanged;
        if premultiply {
            alpha_weighted(&mut planes, multiply);
        }
        planes.par_iter_mut().for_each(|plane| {
            if w != width {
                *plane = horizontal(plane, w, &columns);
            }
            if h != height {
                *plane = vertical(plane, width, &rows);
            }
        });
        if premultiply {
            alpha_weighted(&mut planes, divide);
        }
        for (out, plane) in out.chunks_exact_mut(height * width).zip(&planes) {
            out.iter_mut().zip(plane).for_each(|(o, &v)| *o = f32::from(v) / 255.0);
        }
    });
    tensor::from_vec(out, (b, c, height, width), planes)
}

/// Applies `f(value, alpha)` to every colour sample.
fn alpha_weighted(planes: &mut [Vec<u8>], f: impl Fn(u8, u8) -> u8) {
    if let Some((alpha, colors)) = planes.split_last_mut() {
        for plane in colors {
            plane.iter_mut().zip(&*alpha).for_each(|(v, &a)| *v = f(*v, a));
        }
    }
}

/// v * alpha / 255, rounded.
fn multiply(v: u8, alpha: u8) -> u8 {
    let product = u32::from(v) * u32::from(alpha) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// v * 255 / alpha, truncated.
fn divide(v: u8, alpha: u8) -> u8 {
    if alpha == 0 || alpha == 255 { v } else { (255 * u32::from(v) / u32::from(alpha)).min(255) as u8 }
}

fn lanczos3(x: f64) -> f64 {
    let sinc =
        |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn taps(old: usize, new: usize) -> Vec<Taps> {
    let scale = old as f64 / new as f64;
    let filter = scale.max(1.0);
    let support = 3.0 * filter;
    (0..new)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(old);
            let weight = |k: usize| lanczos3((k as f64 - center + 0.5) * (1.0 / filter));
            let weights: Vec<f64> = (start..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            // f64::round rounds half away from zero.
            let fixed = |w: f64| ((w / sum) * f64::from(1 << PRECISION)).round() as i64;
            Taps { start, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

fn clip(sum: i64) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn horizontal(plane: &[u8], width: usize, columns: &[Taps]) -> Vec<u8> {
    let row = |row: &[u8]| -> Vec<u8> {
        let pixel = |t: &Taps| {
            let sum: i64 = t.weights.iter().zip(&row[t.start..]).map(|(w, &v)| w * i64::from(v)).sum();
            clip(sum + (1 << (PRECISION - 1)))
        };
        columns.iter().map(pixel).collect()
    };
    plane.chunks_exact(width).flat_map(row).collect()
}

fn vertical(plane: &[u8], width: usize, rows: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * width);
    let mut sums = vec![0i64; width];
    for t in rows {
        sums.fill(1 << (PRECISION - 1));
        for (w, row) in t.weights.iter().zip(plane[t.start * width..].chunks_exact(width)) {
            sums.iter_mut().zip(row).for_each(|(s, &v)| *s += w * i64::from(v));
        }
        out.extend(sums.iter().copied().map(clip));
    }
    out
}
