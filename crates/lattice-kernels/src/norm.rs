//! Normalisations: statistics in one pass over memory, then scale, shift and activation in a second while the values are
//! still in the cache.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::simd::{Kernel, Simd, dispatch};

/// Values whose mean and spread are taken at a time; they are read twice, the second time from the first-level cache.
const BLOCK: usize = 4096;
/// Values of a task over short rows.
const TASK: usize = 1 << 15;

/// Sum of the values of a function over `x`: `vector` adds that of a whole vector to a sum, `single` is that of each value past the
/// last vector.
macro_rules! sum_of {
    ($s:expr, $x:expr, |$sum:ident, $v:ident| $vector:expr, |$e:ident| $single:expr) => {{
        let (x, len) = ($x.as_ptr(), $x.len());
        // Four sums hide the latency of the additions and keep each of them short.
        let mut sums = [$s.zero(); 4];
        let mut i = 0;
        while i + 4 * S::LANES <= len {
            for j in 0..4 {
                // SAFETY: elements i..i + 4 LANES of the slice.
                let ($sum, $v) = (sums[j], unsafe { $s.load(x.add(i + j * S::LANES)) });
                sums[j] = $vector;
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= len {
            // SAFETY: elements i..i + LANES of the slice.
            let ($sum, $v) = (sums[0], unsafe { $s.load(x.add(i)) });
            sums[0] = $vector;
            i += S::LANES;
        }
        let mut total = $s.sum($s.add($s.add(sums[0], sums[1]), $s.add(sums[2], sums[3])));
        for &$e in &$x[i..] {
            total += $single;
        }
        total
    }};
}

/// Mean and mean squared deviation of `x`: blocks are joined as Chan, Golub & LeVeque 1983 do, so that neither a large
/// mean nor a long row costs accuracy.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32]) -> (f64, f64) {
    let (mut count, mut mean, mut deviation) = (0f64, 0f64, 0f64);
    for block in x.chunks(BLOCK) {
        let n = block.len() as f64;
        let block_mean = f64::from(sum_of!(s, block, |sum, v| s.add(sum, v), |x| x)) / n;
        let centre = block_mean as f32;
        let c = s.splat(centre);
        let squares = sum_of!(
            s,
            block,
            |sum, v| {
                let d = s.sub(v, c);
                s.fma(d, d, sum)
            },
            |x| (x - centre) * (x - centre)
        );
        let delta = block_mean - mean;
        let total = count + n;
        mean += delta * n / total;
        deviation += f64::from(squares) + delta * delta * count * n / total;
        count = total;
    }
    (mean, deviation / count.max(1.0))
}

/// Mean of the squares of `x`.
#[inline(always)]
fn mean_square<S: Simd>(s: S, x: &[f32]) -> f64 {
    // A loop: the body of a closure would be compiled without the instruction set.
    let mut sum = 0f64;
    for block in x.chunks(BLOCK) {
        sum += f64::from(sum_of!(s, block, |sum, v| s.fma(v, v, sum), |x| x * x));
    }
    sum / x.len().max(1) as f64
}

/// out = (x - centre) factor, times gain, plus shift, one of each per element.
#[inline(always)]
fn scale_row<S: Simd>(
    s: S,
    x: &[f32],
    [centre, factor]: [f32; 2],
    gain: Option<&[f32]>,
    shift: Option<&[f32]>,
    out: &mut [f32],
) {
    let len = x.len();
    assert!(out.len() == len && gain.is_none_or(|g| g.len() == len) && shift.is_none_or(|b| b.len() == len));
    let (centre, factor) = (s.splat(centre), s.splat(factor));
    for i in (0..len).step_by(S::LANES) {
        let n = (len - i).min(S::LANES);
        // SAFETY: elements i..i + n of slices of one length, by the assertion.
        unsafe {
            let mut y = s.mul(s.sub(s.load_n(x.as_ptr().add(i), n), centre), factor);
            if let Some(gain) = gain {
                y = s.mul(y, s.load_n(gain.as_ptr().add(i), n));
            }
            if let Some(shift) = shift {
                y = s.add(y, s.load_n(shift.as_ptr().add(i), n));
            }
            s.store_n(out.as_mut_ptr().add(i), n, y);
        }
    }
}

/// out = f((x - centre) gain + shift); x is what `out` holds where none is given.
#[inline(always)]
fn scale_channel<S: Simd>(
    s: S,
    x: Option<&[f32]>,
    [centre, gain, shift]: [f32; 3],
    silu: bool,
    out: &mut [f32],
) {
    assert!(x.is_none_or(|x| x.len() == out.len()));
    // A block at a time, so that the activation finds it in the first-level cache.
    for (block, out) in out.chunks_mut(BLOCK / 4).enumerate() {
        let (centre, gain, shift) = (s.splat(centre), s.splat(gain), s.splat(shift));
        let to = out.as_mut_ptr();
        let from = x.map_or(to.cast_const(), |x| x[block * (BLOCK / 4)..].as_ptr());
        for i in (0..out.len()).step_by(S::LANES) {
            let n = (out.len() - i).min(S::LANES);
            // SAFETY: elements i..i + n of this block of both slices, which are of one length or the same.
            unsafe {
                let y = s.fma(s.sub(s.load_n(from.add(i), n), centre), gain, shift);
                s.store_n(to.add(i), n, y);
            }
        }
        if silu {
            Activation::Silu.apply_in_place(s, out);
        }
    }
}

/// 1 / sqrt(spread + eps).
fn reciprocal_deviation(spread: f64, eps: f64) -> f32 {
    (1.0 / (spread + eps).sqrt()) as f32
}

/// Group normalisation of x [batch, channels, pixels] with gain and shift [channels], and SiLU of it if `silu`; x is what
/// `out` holds where none is given.
pub(crate) fn group_norm(
    x: Option<&[f32]>,
    [channels, groups]: [usize; 2],
    [gain, shift]: [&[f32]; 2],
    eps: f64,
    silu: bool,
    pixels: usize,
    out: &mut [f32],
) {
    struct Group<'a> {
        x: Option<&'a [f32]>,
        pixels: usize,
        gain: &'a [f32],
        shift: &'a [f32],
        eps: f64,
        silu: bool,
        out: &'a mut [f32],
    }
    impl Kernel for Group<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let (mean, spread) = moments(s, self.x.unwrap_or(self.out));
            let factor = reciprocal_deviation(spread, self.eps);
            let planes = self.out.chunks_exact_mut(self.pixels).enumerate();
            for ((i, out), (gain, shift)) in planes.zip(self.gain.iter().zip(self.shift)) {
                let x = self.x.map(|x| &x[i * self.pixels..(i + 1) * self.pixels]);
                scale_channel(s, x, [mean as f32, factor * gain, *shift], self.silu, out);
            }
        }
    }
    let width = channels / groups;
    let len = width * pixels;
    if len == 0 {
        return;
    }
    out.par_chunks_exact_mut(len).enumerate().for_each(|(i, out)| {
        let x = x.map(|x| &x[i * len..(i + 1) * len]);
        let own = i % groups * width..(i % groups + 1) * width;
        let (gain, shift) = (&gain[own.clone()], &shift[own]);
        dispatch(Group { x, pixels, gain, shift, eps, silu, out });
    });
}

/// What a row is normalised by.
#[derive(Clone, Copy)]
pub(crate) enum Statistic {
    /// Mean and standard deviation.
    Layer,
    /// Root of the mean square.
    RootMeanSquare,
}

/// Normalises rows of `width` elements, with gain and shift [width] where there are.
pub(crate) fn rows(
    x: &[f32],
    width: usize,
    statistic: Statistic,
    gain: Option<&[f32]>,
    shift: Option<&[f32]>,
    eps: f64,
    out: &mut [f32],
) {
    struct Rows<'a> {
        x: &'a [f32],
        width: usize,
        statistic: Statistic,
        gain: Option<&'a [f32]>,
        shift: Option<&'a [f32]>,
        eps: f64,
        out: &'a mut [f32],
    }
    impl Kernel for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for (x, out) in self.x.chunks_exact(self.width).zip(self.out.chunks_exact_mut(self.width)) {
                let (centre, spread) = match self.statistic {
                    Statistic::Layer => moments(s, x),
                    Statistic::RootMeanSquare => (0.0, mean_square(s, x)),
                };
                let factor = reciprocal_deviation(spread, self.eps);
                scale_row(s, x, [centre as f32, factor], self.gain, self.shift, out);
            }
        }
    }
    if width == 0 {
        return;
    }
    let chunk = (TASK / width).max(1) * width;
    out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
        dispatch(Rows { x, width, statistic, gain, shift, eps, out });
    });
}
