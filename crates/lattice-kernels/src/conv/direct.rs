//! Convolutions of stride 1 with few results per pixel, as they are defined: those that end a network, and depthwise ones.
//!
//! The matrix of patches would hold each input as many times as the kernel has taps, for a handful of multiplications each. Here
//! padded rows of a few channels are brought into the first caches, and each vector of neighbouring results stays in registers while
//! these channels' taps run; the sums of a task's rows wait in scratch until the next channels come.

use std::ops::Range;

use rayon::prelude::*;

use super::Geometry;
use crate::Weight;
use crate::gemm::{Left, split};
use crate::scratch::{Scratch, SharedMut, aligned};
use crate::simd::{Kernel, Simd, dispatch};
use crate::stored::StoredRows;

/// Results per pixel from which on the other ways pay, and the same for pointwise convolutions, whose patches are the image itself.
const FEW: usize = 16;
const FEW_POINTWISE: usize = 8;
/// Results that are computed together.
const TOGETHER: usize = 4;
/// Taps, of all channels that are brought in at a time.
const TAPS: usize = 36;
/// Pixels of a result that a task's rows hold: with `TOGETHER` results, 64 kB.
const PIXELS: usize = 4096;

/// Whether this way needs the least work.
pub(super) fn suits(g: &Geometry) -> bool {
    g.stride == 1 && g.outputs / g.groups < if g.is_pointwise() { FEW_POINTWISE } else { FEW }
}

/// out = x * w + bias, as [`super::conv2d`].
pub(super) fn conv2d(g: &Geometry, x: &[f32], weight: &Weight, bias: Option<&[f32]>, out: &mut [f32]) {
    let [height, width] = g.out_size;
    let outputs = g.outputs / g.groups;
    let taps = Taps::new(g, weight);
    let shared = SharedMut::new(out);
    let rows = (PIXELS / width).clamp(1, height);
    let mut tasks = Vec::new();
    for image in 0..g.batch {
        for group in 0..g.groups {
            for results in split(outputs, outputs.div_ceil(TOGETHER), 1) {
                let parts = split(height, height.div_ceil(rows), 1);
                tasks.extend(parts.map(|rows| (image, group, results.clone(), rows)));
            }
        }
    }
    tasks.into_par_iter().for_each(|(image, group, results, rows)| {
        dispatch(Task { g, x, taps: &taps, bias, image, group, results, rows, out: shared });
    });
}

/// The weight as f32, [outputs, inputs / groups, kh, kw].
struct Taps {
    all: Vec<f32>,
    /// Per result.
    len: usize,
}

impl Taps {
    fn new(g: &Geometry, weight: &Weight) -> Self {
        struct Widen<'a> {
            stored: StoredRows<'a>,
            outputs: usize,
            len: usize,
        }
        impl Kernel for Widen<'_> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> Vec<f32> {
                let mut all = vec![0.0; self.outputs * self.len];
                for (row, dst) in all.chunks_exact_mut(self.len.max(1)).enumerate() {
                    Left::row(&self.stored, s, row, 0, dst);
                }
                all
            }
        }
        let len = g.inputs / g.groups * g.kernel[0] * g.kernel[1];
        let all = dispatch(Widen { stored: StoredRows::new(weight, len, 0), outputs: g.outputs, len });
        Self { all, len }
    }
}

/// Some rows of some results of one image and group.
struct Task<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    taps: &'a Taps,
    bias: Option<&'a [f32]>,
    image: usize,
    group: usize,
    /// Results, counted in the group.
    results: Range<usize>,
    rows: Range<usize>,
    out: SharedMut,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.results.len() {
            1 => self.sum::<S, 1>(s),
            2 => self.sum::<S, 2>(s),
            3 => self.sum::<S, 3>(s),
            _ => self.sum::<S, TOGETHER>(s),
        }
    }
}

impl Task<'_> {
    /// OUTS: results.
    #[inline(always)]
    fn sum<S: Simd, const OUTS: usize>(&self, s: S) {
        // Vectors of pixels side by side; with OUTS results each, their sums are in registers.
        const MANY: usize = 4;
        const FEWER: usize = 2;
        let g = self.g;
        let [kh, kw] = g.kernel;
        let inputs = g.inputs / g.groups;
        let [_, width] = g.out_size;
        let rows = self.rows.len();
        let ld = width.next_multiple_of(S::LANES);
        let lines = Lines {
            ld: aligned(ld + (kw - 1) * g.dilation),
            rows: rows + (kh - 1) * g.dilation,
            channels: (TAPS / (kh * kw)).clamp(1, inputs.max(1)),
        };
        let sums_len = aligned(OUTS * rows * ld);
        let mut scratch = Scratch::take(sums_len + lines.len());
        let (sums, held) = scratch.split_at_mut(sums_len);
        self.begin(sums, rows * ld);
        // What lies outside the image stays zero through all channels.
        held.fill(0.0);
        for first in (0..inputs).step_by(lines.channels) {
            let channels = first..(first + lines.channels).min(inputs);
            self.bring(&lines, &channels, held);
            for y in 0..rows {
                let mut x = 0;
                while x < ld {
                    let sums = &mut sums[y * ld + x..];
                    let held = &held[y * lines.ld + x..];
                    let vectors = (ld - x) / S::LANES;
                    let part = Part { lines: &lines, channels: &channels, held, sums, plane: rows * ld };
                    // Instruction sets with many registers have tall micro-tiles.
                    x += S::LANES
                        * if S::MR >= 12 && vectors >= MANY {
                            self.multiply::<S, OUTS, MANY>(s, part)
                        } else if vectors >= FEWER {
                            self.multiply::<S, OUTS, FEWER>(s, part)
                        } else {
                            self.multiply::<S, OUTS, 1>(s, part)
                        };
                }
            }
        }
        for (o, result) in self.results.clone().enumerate() {
            let plane =
                (self.image * g.outputs + self.group * (g.outputs / g.groups) + result) * g.out_size[0];
            for (y, row) in self.rows.clone().enumerate() {
                // SAFETY: this task alone writes these rows.
                let out = unsafe { self.out.slice((plane + row) * width, width) };
                out.copy_from_slice(&sums[(o * rows + y) * ld..][..width]);
            }
        }
    }

    /// The sums start from the bias.
    #[inline(always)]
    fn begin(&self, sums: &mut [f32], plane: usize) {
        let first = self.group * (self.g.outputs / self.g.groups);
        for (result, sums) in self.results.clone().zip(sums.chunks_exact_mut(plane)) {
            sums.fill(self.bias.map_or(0.0, |bias| bias[first + result]));
        }
    }

    /// Copies the rows that the task's results see of `channels` to their places between the zeros.
    #[inline(always)]
    fn bring(&self, lines: &Lines, channels: &Range<usize>, held: &mut [f32]) {
        let g = self.g;
        let [height, width] = g.size;
        let first = self.image * g.inputs + self.group * (g.inputs / g.groups);
        let [above, before] = g.before;
        for (channel, held) in channels.clone().zip(held.chunks_exact_mut(lines.rows * lines.ld)) {
            let x = &self.x[(first + channel) * height * width..][..height * width];
            for (line, held) in held.chunks_exact_mut(lines.ld).enumerate() {
                if let Some(row) = (self.rows.start + line).checked_sub(above).filter(|row| *row < height) {
                    held[before..before + width].copy_from_slice(&x[row * width..][..width]);
                }
            }
        }
    }

    /// Adds the taps of all held channels to VECTORS vectors of each result; returns VECTORS.
    #[inline(always)]
    fn multiply<S: Simd, const OUTS: usize, const VECTORS: usize>(&self, s: S, part: Part<'_>) -> usize {
        let Part { lines, channels, held, sums, plane } = part;
        let [kh, kw] = self.g.kernel;
        let dilation = self.g.dilation;
        let first = self.group * (self.g.outputs / self.g.groups) + self.results.start;
        let taps = &self.taps.all[first * self.taps.len + channels.start * kh * kw..];
        assert!(taps.len() >= (OUTS - 1) * self.taps.len + channels.len() * kh * kw);
        assert!(sums.len() >= (OUTS - 1) * plane + VECTORS * S::LANES);
        let reach = (kh - 1) * dilation * lines.ld + (kw - 1) * dilation + VECTORS * S::LANES;
        assert!(held.len() >= (channels.len() - 1) * lines.rows * lines.ld + reach);
        let (to, taps_len) = (sums.as_mut_ptr(), self.taps.len);
        let mut acc = [[s.zero(); VECTORS]; OUTS];
        // SAFETY: the largest offsets lie in the slices by the assertions.
        unsafe {
            let mut tap = taps.as_ptr();
            for c in 0..channels.len() {
                for ky in 0..kh {
                    let mut from = held.as_ptr().add((c * lines.rows + ky * dilation) * lines.ld);
                    for _ in 0..kw {
                        let mut x = [s.zero(); VECTORS];
                        for v in 0..VECTORS {
                            x[v] = s.load(from.add(v * S::LANES));
                        }
                        for o in 0..OUTS {
                            let w = s.splat(*tap.add(o * taps_len));
                            for v in 0..VECTORS {
                                acc[o][v] = s.fma(w, x[v], acc[o][v]);
                            }
                        }
                        tap = tap.add(1);
                        from = from.wrapping_add(dilation);
                    }
                }
            }
            // Added up apart from what was before: short sums round less.
            for o in 0..OUTS {
                for v in 0..VECTORS {
                    let to = to.add(o * plane + v * S::LANES);
                    s.store(to, s.add(s.load(to), acc[o][v]));
                }
            }
        }
        VECTORS
    }
}

/// Padded rows of some channels: [channels, rows, ld].
struct Lines {
    ld: usize,
    rows: usize,
    channels: usize,
}

impl Lines {
    fn len(&self) -> usize {
        self.channels * self.rows * self.ld
    }
}

/// Where one call of [`Task::multiply`] finds and leaves its values.
struct Part<'a> {
    lines: &'a Lines,
    channels: &'a Range<usize>,
    /// From the first result's first tap on.
    held: &'a [f32],
    /// From the first pixel of the first result on.
    sums: &'a mut [f32],
    /// Elements between the results in `sums`.
    plane: usize,
}
