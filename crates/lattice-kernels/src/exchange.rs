//! Two axes exchanged in memory: between pictures, whose channels are planes, and tokens, whose channels lie side by side.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{split, transpose};
use crate::scratch::SharedMut;
use crate::simd::{Kernel, Simd, dispatch};

/// Rows and columns of a tile that is turned round in the first-level cache.
const TILE: usize = 64;

/// out [batch, columns, rows] = x^T for each of the matrices x [batch, rows, columns], plus `add`, which lies as `out` does.
///
/// # Panics
/// If the sizes do not fit.
pub(crate) fn exchange(x: &[f32], [rows, columns]: [usize; 2], add: Option<&[f32]>, out: &mut [f32]) {
    assert!(x.len() == out.len() && add.is_none_or(|add| add.len() == out.len()));
    if out.is_empty() {
        return;
    }
    let batch = out.len() / (rows * columns);
    let shared = SharedMut::new(out);
    let tasks: Vec<_> = (0..batch)
        .flat_map(|item| split(columns, columns.div_ceil(TILE), TILE).map(move |columns| (item, columns)))
        .collect();
    tasks.into_par_iter().for_each(|(item, some)| {
        let matrix = item * rows * columns..(item + 1) * rows * columns;
        let start = matrix.start + some.start * rows;
        let len = some.len() * rows;
        // SAFETY: these columns become these rows of the result, which this task alone writes.
        let out = unsafe { shared.slice(start, len) };
        let add = add.map(|add| &add[start..start + len]);
        dispatch(Part { x: &x[matrix], rows, columns, some, add, out });
    });
}

/// Some columns of one matrix.
struct Part<'a> {
    x: &'a [f32],
    rows: usize,
    columns: usize,
    some: Range<usize>,
    add: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut tile = [0f32; TILE * TILE];
        for first in (0..self.rows).step_by(TILE) {
            let rows = TILE.min(self.rows - first);
            let from = &self.x[first * self.columns + self.some.start..];
            transpose(s, from, self.columns, rows, self.some.len(), &mut tile, TILE);
            for column in 0..self.some.len() {
                let at = column * self.rows + first..column * self.rows + first + rows;
                let from = &tile[column * TILE..column * TILE + rows];
                let to = &mut self.out[at.clone()];
                match self.add {
                    None => to.copy_from_slice(from),
                    Some(add) => sum(s, from, &add[at], to),
                }
            }
        }
    }
}

/// to = a + b.
#[inline(always)]
fn sum<S: Simd>(s: S, a: &[f32], b: &[f32], to: &mut [f32]) {
    let len = to.len();
    assert!(a.len() == len && b.len() == len);
    for i in (0..len).step_by(S::LANES) {
        let n = (len - i).min(S::LANES);
        // SAFETY: elements i..i + n of slices of one length, by the assertion.
        unsafe {
            let sum = s.add(s.load_n(a.as_ptr().add(i), n), s.load_n(b.as_ptr().add(i), n));
            s.store_n(to.as_mut_ptr().add(i), n, sum);
        }
    }
}
