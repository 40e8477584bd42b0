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
