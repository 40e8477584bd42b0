//! The matrix of an image's patches as an operand that is gathered where it is packed.

use super::Geometry;
use crate::gemm::{Right, copy};
use crate::simd::{MAX_NR, Simd};

/// The patches of one image (one group's channels of it): row (c, ky, kx), column (y, x) holds the input that output
/// (y, x) multiplies by tap (ky, kx) of channel c.
pub(crate) struct Patches<'a> {
    /// [channels, h, w].
    x: &'a [f32],
    size: [usize; 2],
    out_width: usize,
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    before: [usize; 2],
    /// The patches are the pixels themselves.
    pointwise: bool,
}

/// Consecutive columns that lie in one row of the result.
#[derive(Clone, Copy, Default)]
struct Run {
    /// First column in the panel.
    at: usize,
    len: usize,
    y: usize,
    x: usize,
}

impl<'a> Patches<'a> {
    /// The patches of `x`, the channels of one image and group.
    pub(crate) fn new(g: &Geometry, x: &'a [f32]) -> Self {
        // A pointwise convolution knows no rows: one long row per channel makes every panel one run.
        let flat = |size: [usize; 2]| [1, size[0] * size[1]];
        let (size, out_size) =
            if g.is_pointwise() { (flat(g.size), flat(g.out_size)) } else { (g.size, g.out_size) };
        Self {
            x,
            size,
            out_width: out_size[1],
            kernel: g.kernel,
            stride: g.stride,
            dilation: g.dilation,
            before: g.before,
            pointwise: g.is_pointwise(),
        }
    }

    /// Cuts columns `col..col + cols` at the ends of rows.
    fn runs(&self, col: usize, cols: usize) -> ([Run; MAX_NR], usize) {
        let mut runs = [Run::default(); MAX_NR];
        let (mut at, mut count) = (0, 0);
        while at < cols {
            let (y, x) = ((col + at) / self.out_width, (col + at) % self.out_width);
            let len = (self.out_width - x).min(cols - at);
            runs[count] = Run { at, len, y, x };
            at += len;
            count += 1;
        }
        (runs, count)
    }
}

impl Right for Patches<'_> {
    /// Some channels at a time: a panel sees little of each channel, and the next panel's part lies next to it.
    fn step(&self) -> usize {
        8 * self.kernel[0] * self.kernel[1]
    }

    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, k0: usize, k: usize, col: usize, cols: usize, dst: &mut [f32]) {
        let ([h, w], [kh, kw]) = (self.size, self.kernel);
        if self.pointwise && cols == S::NR {
            for (c, dst) in dst[..k * S::NR].chunks_exact_mut(S::NR).enumerate() {
                let from = &self.x[(k0 + c) * w + col..][..S::NR];
                copy(s, from, dst);
            }
            return;
        }
        let (runs, count) = self.runs(col, cols);
        let (mut c, mut ky, mut kx) = (k0 / (kh * kw), k0 / kw % kh, k0 % kw);
        for dst in dst[..k * S::NR].chunks_exact_mut(S::NR) {
            for run in &runs[..count] {
                let dst = &mut dst[run.at..run.at + run.len];
                match (run.y * self.stride + ky * self.dilation).checked_sub(self.before[0]) {
                    Some(y) if y < h => {
                        let row = &self.x[(c * h + y) * w..][..w];
                        let x = run.x * self.stride + kx * self.dilation;
                        gather(s, row, x, self.before[1], self.stride, dst);
                    }
                    _ => dst.fill(0.0),
                }
            }
            if cols < S::NR {
                dst[cols..].fill(0.0);
            }
            kx += 1;
            if kx == kw {
                (kx, ky) = (0, ky + 1);
            }
            if ky == kh {
                (ky, c) = (0, c + 1);
            }
        }
    }
}

/// `dst[i] = row[x + i * stride - before]`, zero outside the row.
#[inline(always)]
pub(super) fn gather<S: Simd>(s: S, row: &[f32], x: usize, before: usize, stride: usize, dst: &mut [f32]) {
    // A division by a variable would take as long as copying a panel's row.
    let steps = |distance: usize| match stride {
        1 => distance,
        2 => distance.div_ceil(2),
        _ => distance.div_ceil(stride),
    };
    // The outputs lo..hi see the row itself.
    let lo = steps(before.saturating_sub(x)).min(dst.len());
    let hi = steps((row.len() + before).saturating_sub(x)).clamp(lo, dst.len());
    if lo > 0 {
        dst[..lo].fill(0.0);
    }
    if hi < dst.len() {
        dst[hi..].fill(0.0);
    }
    if lo == hi {
        return;
    }
    let from = &row[x + lo * stride - before..];
    let to = &mut dst[lo..hi];
    if stride == 1 {
        copy(s, &from[..hi - lo], to);
    } else if stride == 2 {
        copy_evens(s, &from[..2 * (hi - lo) - 1], to);
    } else {
        for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
            *to = *from;
        }
    }
}

/// `to[i] = from[2 * i]`.
#[inline(always)]
fn copy_evens<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let (len, all) = (to.len(), from.len());
    assert!(all == 2 * len - 1);
    let mut whole = 0;
    while 2 * (whole + S::LANES) <= all {
        // SAFETY: elements up to 2 (whole + LANES) of `from` and up to whole + LANES, not above len, of `to`.
        unsafe {
            let pair = from.as_ptr().add(2 * whole);
            s.store(to.as_mut_ptr().add(whole), s.evens(s.load(pair), s.load(pair.add(S::LANES))));
        }
        whole += S::LANES;
    }
    for i in (whole..len).step_by(S::LANES) {
        let n = (len - i).min(S::LANES);
        let second = 2 * i + S::LANES;
        // SAFETY: elements 2 i.. and second.. of `from`, as many as there are; elements i..i + n of `to`.
        unsafe {
            let a = s.load_n(from.as_ptr().add(2 * i), (all - 2 * i).min(S::LANES));
            let b = if second < all {
                s.load_n(from.as_ptr().add(second), (all - second).min(S::LANES))
            } else {
                s.zero()
            };
            s.store_n(to.as_mut_ptr().add(i), n, s.evens(a, b));
        }
    }
}
