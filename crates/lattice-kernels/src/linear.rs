//! Linear layers over stored weights: y = f(x W^T + b).

use std::ops::Range;

use rayon::prelude::*;

use crate::Weight;
use crate::gemm::{Finish, Matrix, Product, split};
use crate::scratch::{Scratch, SharedMut};
use crate::simd::{Kernel, Simd, dispatch};
use crate::stored::{StoredRows, Transposed};

/// Up to this many rows, the weight is streamed once through dot products instead of being packed.
const FEW_ROWS: usize = 8;

/// out = finish(x W^T + bias + residual) with x [rows, k], W [n, k] as stored.
///
/// `out` is [rows, n], or [rows, n / 2] with [`Finish::Gated`]; it is written without being read.
pub(crate) fn linear(
    x: &[f32],
    weight: &Weight,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    finish: Finish,
    out: &mut [f32],
) {
    let n = weight.dims()[0];
    let k = weight.dims()[1];
    if out.is_empty() {
        return;
    }
    let width = if matches!(finish, Finish::Gated(_)) { n / 2 } else { n };
    let m = out.len() / width;
    let stored = StoredRows::new(weight, k, 0);
    if m <= FEW_ROWS {
        return few_rows(x, &stored, n, k, bias, residual, finish, out);
    }
    Product {
        m,
        n,
        k,
        left: &Matrix { data: x, ld: k },
        right: &Transposed(stored),
        row_bias: None,
        col_bias: bias,
        residual,
        finish,
        out: SharedMut::new(out),
        ld_out: width,
    }
    .run();
}

/// Few rows: each weight is used a handful of times, so the time is that of reading it; the threads share its rows.
fn few_rows(
    x: &[f32],
    stored: &StoredRows<'_>,
    n: usize,
    k: usize,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    finish: Finish,
    out: &mut [f32],
) {
    let gated = matches!(finish, Finish::Gated(_));
    let width = if gated { n / 2 } else { n };
    let m = out.len() / width;
    let mut sums = vec![0.0; m * n];
    let shared = SharedMut::new(&mut sums);
    let tasks: Vec<_> = split(n, (n * k / 65536).clamp(1, 4 * rayon::current_num_threads()), 1).collect();
    tasks.into_par_iter().for_each(|rows| dispatch(Dots { x, stored, n, k, m, rows, sums: shared }));
    if let Some(bias) = bias {
        for row in sums.chunks_exact_mut(n) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }
    if let Some(residual) = residual {
        for (y, r) in sums.iter_mut().zip(residual) {
            *y += r;
        }
    }
    dispatch(FinishRows { sums: &sums, n, width, finish, out });
}

/// Dot products of `m` rows of x with rows of the weight, `sums[i * n + j]`.
struct Dots<'a> {
    x: &'a [f32],
    stored: &'a StoredRows<'a>,
    n: usize,
    k: usize,
    m: usize,
    rows: Range<usize>,
    sums: SharedMut,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut buffer = Scratch::take(self.k);
        {
            for j in self.rows.clone() {
                let w = self.stored.row(s, j, 0, self.k, &mut buffer);
                let mut i = 0;
                while i < self.m {
                    let take = (self.m - i).min(4);
                    let x = &self.x[i * self.k..(i + take) * self.k];
                    let sums = match take {
                        1 => dots::<S, 1>(s, w, x),
                        2 => dots::<S, 2>(s, w, x),
                        3 => dots::<S, 3>(s, w, x),
                        _ => dots::<S, 4>(s, w, x),
                    };
                    for (o, sum) in sums.iter().enumerate().take(take) {
                        // SAFETY: column j belongs to this task alone.
                        unsafe { *self.sums.at((i + o) * self.n + j) = *sum };
                    }
                    i += take;
                }
            }
        }
    }
}

/// Dot products of w with R consecutive rows of x. Two accumulators each hide the latency of the additions.
#[inline(always)]
fn dots<S: Simd, const R: usize>(s: S, w: &[f32], x: &[f32]) -> [f32; 4] {
    let k = w.len();
    assert!(x.len() >= R * k);
    let mut acc = [[s.zero(); 2]; R];
    let mut p = 0;
    // SAFETY: rows r < R of x and w hold k elements, by the assertion; p stays below k.
    unsafe {
        while p + 2 * S::LANES <= k {
            let (w0, w1) = (s.load(w.as_ptr().add(p)), s.load(w.as_ptr().add(p + S::LANES)));
            for (r, a) in acc.iter_mut().enumerate() {
                let row = x.as_ptr().add(r * k + p);
                a[0] = s.fma(w0, s.load(row), a[0]);
                a[1] = s.fma(w1, s.load(row.add(S::LANES)), a[1]);
            }
            p += 2 * S::LANES;
        }
        while p < k {
            let n = (k - p).min(S::LANES);
            let w0 = s.load_n(w.as_ptr().add(p), n);
            for (r, a) in acc.iter_mut().enumerate() {
                a[0] = s.fma(w0, s.load_n(x.as_ptr().add(r * k + p), n), a[0]);
            }
            p += n;
        }
    }
    let mut sums = [0.0; 4];
    for (sum, a) in sums.iter_mut().zip(acc) {
        *sum = s.sum(s.add(a[0], a[1]));
    }
    sums
}

struct FinishRows<'a> {
    sums: &'a [f32],
    n: usize,
    width: usize,
    finish: Finish,
    out: &'a mut [f32],
}

impl Kernel for FinishRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (sums, out) in self.sums.chunks_exact(self.n).zip(self.out.chunks_exact_mut(self.width)) {
            match self.finish {
                Finish::Activation(f) => f.apply(s, sums, out),
                Finish::Gated(f) => f.gate(s, &sums[..self.width], &sums[self.width..2 * self.width], out),
            }
        }
    }
}
