//! Elementwise operations over whole tensors, shared out to the thread pool.

use rayon::prelude::*;

use crate::activation::Activation;
use crate::simd::{Kernel, Simd, dispatch};

/// Elements per task: large enough to hand over, small enough to stay in the first-level cache.
pub(crate) const CHUNK: usize = 1 << 14;

/// out = f(x), slices of one length.
pub(crate) fn apply(x: &[f32], f: Activation, out: &mut [f32]) {
    struct Apply<'a>(&'a [f32], Activation, &'a mut [f32]);
    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            self.1.apply(s, self.0, self.2);
        }
    }
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| dispatch(Apply(x, f, out)));
}

/// out = value * f(gate) for rows [value, gate] of `width` elements.
pub(crate) fn gate(x: &[f32], width: usize, f: Activation, out: &mut [f32]) {
    struct Gate<'a>(&'a [f32], usize, Activation, &'a mut [f32]);
    impl Kernel for Gate<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Self(x, width, f, out) = self;
            for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width / 2)) {
                let (value, gate) = row.split_at(width / 2);
                f.gate(s, value, gate, out);
            }
        }
    }
    if width == 0 {
        return;
    }
    let rows = (CHUNK / width).max(1);
    out.par_chunks_mut(rows * width / 2)
        .zip(x.par_chunks(rows * width))
        .for_each(|(out, x)| dispatch(Gate(x, width, f, out)));
}

/// Turns neighbouring pairs (a, b) of `x`, rows of `heads` heads, into (a cos - b sin, a sin + b cos); `cos` and `sin`
/// [length, pairs] hold one angle for each pair of a head, the same for all heads of a row, row i mod length.
pub(crate) fn rotate(x: &[f32], heads: usize, [cos, sin]: [&[f32]; 2], pairs: usize, out: &mut [f32]) {
    let width = 2 * pairs * heads;
    if width == 0 || cos.is_empty() {
        return;
    }
    let length = cos.len() / pairs;
    let rows = (CHUNK / width).max(1);
    out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).enumerate().for_each(
        |(chunk, (out, x))| {
            for (i, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
                let at = (chunk * rows + i) % length * pairs;
                let angles = cos[at..at + pairs].iter().zip(&sin[at..at + pairs]);
                for (x, out) in x.chunks_exact(2 * pairs).zip(out.chunks_exact_mut(2 * pairs)) {
                    let whole = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
                    for ((x, out), (cos, sin)) in whole.zip(angles.clone()) {
                        *out = [x[0] * cos - x[1] * sin, x[0] * sin + x[1] * cos];
                    }
                }
            }
        },
    );
}

/// out += x, slices of one length.
pub(crate) fn add(x: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    });
}

/// out += one of `values` per run of `pixels` elements.
pub(crate) fn add_per_run(values: &[f32], pixels: usize, out: &mut [f32]) {
    if pixels == 0 {
        return;
    }
    out.par_chunks_mut(pixels).zip(values).with_min_len(CHUNK.div_ceil(pixels)).for_each(|(out, value)| {
        for out in out {
            *out += value;
        }
    });
}

/// out = x + gate out for samples of `length` rows, with a gate [samples, width] that the rows of a sample share.
pub(crate) fn add_gated(x: &[f32], gate: &[f32], width: usize, length: usize, out: &mut [f32]) {
    if width == 0 || length == 0 {
        return;
    }
    let rows = (CHUNK / width).max(1);
    out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).enumerate().for_each(
        |(chunk, (out, x))| {
            for (i, (out, x)) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                let sample = (chunk * rows + i) / length;
                let gate = &gate[sample * width..(sample + 1) * width];
                for ((out, x), gate) in out.iter_mut().zip(x).zip(gate) {
                    *out = x + gate * *out;
                }
            }
        },
    );
}
