//! Stored matrices as operands of the blocked product: widened where they are packed.

use std::ops::Range;

use crate::Weight;
use crate::gemm::{Ahead, Left, Right, transpose};
use crate::simd::{MAX_NR, Simd};

/// Elements of a row that are widened at a time; with as many rows as a panel has, they stay in the first-level cache.
const STEP: usize = 64;

/// Consecutive rows of a stored matrix [rows, k], row-major.
pub(crate) struct StoredRows<'a> {
    weight: &'a Weight,
    /// The elements themselves, where they are f32 as stored.
    direct: Option<&'a [f32]>,
    k: usize,
    /// First row seen.
    start: usize,
}

impl<'a> StoredRows<'a> {
    /// The matrix whose rows have `k` elements, from row `start` on.
    pub(crate) fn new(weight: &'a Weight, k: usize, start: usize) -> Self {
        Self { weight, direct: weight.as_f32(), k, start }
    }

    /// `dst[p * ld + i] = row (row + i) at k0 + p`.
    #[inline(always)]
    pub(crate) fn pack_rows<S: Simd>(
        &self,
        s: S,
        row: usize,
        rows: usize,
        k0: usize,
        k: usize,
        dst: &mut [f32],
        ld: usize,
    ) {
        let row = self.start + row;
        if let Some(all) = self.direct {
            transpose(s, &all[row * self.k + k0..], self.k, rows, k, dst, ld);
            return;
        }
        let mut widened = [0f32; STEP * MAX_NR];
        for p in (0..k).step_by(STEP) {
            let step = STEP.min(k - p);
            for i in 0..rows {
                let at = (row + i) * self.k + k0 + p;
                self.weight.read_f32_inline(s, at, &mut widened[i * STEP..i * STEP + step]);
            }
            transpose(s, &widened, STEP, rows, step, &mut dst[p * ld..], ld);
        }
    }

    /// Row `row` at `k0..k0 + k`, in place or widened into `buffer`.
    #[inline(always)]
    pub(crate) fn row<'b, S: Simd>(
        &'b self,
        s: S,
        row: usize,
        k0: usize,
        k: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32] {
        let at = (self.start + row) * self.k + k0;
        if let Some(all) = self.direct {
            return &all[at..at + k];
        }
        self.weight.read_f32_inline(s, at, &mut buffer[..k]);
        &buffer[..k]
    }
}

impl Left for StoredRows<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, k0: usize, dst: &mut [f32]) {
        let at = (self.start + row) * self.k + k0;
        match self.direct {
            Some(all) => dst.copy_from_slice(&all[at..at + dst.len()]),
            None => self.weight.read_f32_inline(s, at, dst),
        }
    }

    fn direct(&self) -> Option<(&[f32], usize)> {
        self.direct.map(|all| (&all[self.start * self.k..], self.k))
    }

    fn ahead(&self, rows: Range<usize>, k0: usize, k: usize) -> Ahead {
        // Rows of blocks begin and end with a block.
        let bytes = |elements: usize| elements * self.weight.dtype().size() / self.weight.dtype().block_len();
        let at = bytes((self.start + rows.start) * self.k) + bytes(k0);
        Ahead::new(self.weight.bytes().as_ptr().wrapping_add(at), rows.len(), bytes(k), bytes(self.k))
    }
}

/// A stored matrix [n, k] as the right operand [k, n]: the weight of a linear layer.
pub(crate) struct Transposed<'a>(pub(crate) StoredRows<'a>);

impl Right for Transposed<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, k0: usize, k: usize, col: usize, cols: usize, dst: &mut [f32]) {
        if cols < S::NR {
            dst.fill(0.0);
        }
        self.0.pack_rows(s, col, cols, k0, k, dst, S::NR);
    }

    fn ahead(&self, cols: Range<usize>, k0: usize, k: usize) -> Option<Ahead> {
        Some(Left::ahead(&self.0, cols, k0, k))
    }
}
