//! Operands of the blocked product, brought to where the micro-kernel reads them.

use std::ops::Range;

use super::Ahead;
use crate::simd::Simd;

/// The left operand A [m, k].
pub(crate) trait Left: Sync {
    /// Writes `dst[p] = A[row, k0 + p]`.
    fn row<S: Simd>(&self, s: S, row: usize, k0: usize, dst: &mut [f32]);

    /// All rows as they lie, and the elements between them, where they are f32 as they stand.
    fn direct(&self) -> Option<(&[f32], usize)>;

    /// Where rows `rows` lie from `k0` to `k0 + k`.
    fn ahead(&self, rows: Range<usize>, k0: usize, k: usize) -> Ahead;
}

/// The right operand B [k, n].
pub(crate) trait Right: Sync {
    /// Steps of k that are packed for all panels of a slab before the next ones: few where rows of B lie contiguously,
    /// so that memory is read in order.
    fn step(&self) -> usize {
        usize::MAX
    }

    /// Writes `dst[p * NR + j] = B[k0 + p, col + j]` for j < cols, p < k, and zeros for cols <= j < NR.
    ///
    /// `dst` holds `k * NR` elements.
    fn pack<S: Simd>(&self, s: S, k0: usize, k: usize, col: usize, cols: usize, dst: &mut [f32]);

    /// Where columns `cols` lie from `k0` to `k0 + k`, if each is one piece of memory.
    fn ahead(&self, _cols: Range<usize>, _k0: usize, _k: usize) -> Option<Ahead> {
        None
    }
}

/// Copies a short slice with the vectors at hand: a call of `memcpy` would cost more than the copy.
#[inline(always)]
pub(crate) fn copy<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let len = from.len().min(to.len());
    for i in (0..len).step_by(S::LANES) {
        let n = (len - i).min(S::LANES);
        // SAFETY: elements i..i + n of both slices.
        unsafe { s.store_n(to.as_mut_ptr().add(i), n, s.load_n(from.as_ptr().add(i), n)) };
    }
}

/// Columns that are turned round at a time: with rows of 32 as they become, 8 kB.
const COLUMNS: usize = 64;

/// `dst[p * ld + i] = row i of the source at p`, for `rows` rows of `k` elements that lie `ld_src` apart in `src`.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(
    s: S,
    src: &[f32],
    ld_src: usize,
    rows: usize,
    k: usize,
    dst: &mut [f32],
    ld: usize,
) {
    if rows == 0 || k == 0 {
        return;
    }
    assert!((rows - 1) * ld_src + k <= src.len() && (k - 1) * ld + rows <= dst.len());
    let (from, to) = (src.as_ptr(), dst.as_mut_ptr());
    let whole = k - k % 8;
    if rows >= 8 {
        // What a few columns become stays in the first-level cache until all rows were there.
        for first in (0..whole).step_by(COLUMNS) {
            let columns = first..(first + COLUMNS).min(whole);
            let mut i = 0;
            loop {
                for p in columns.clone().step_by(8) {
                    // SAFETY: rows i..i+8 and columns p..p+8 exist by the assertion.
                    unsafe { s.transpose8(from.add(i * ld_src + p), ld_src, to.add(p * ld + i), ld) };
                }
                if i + 8 == rows {
                    break;
                }
                // The last block may overlap the one before: the same values are written twice.
                i = (i + 8).min(rows - 8);
            }
        }
    } else {
        transpose_plain(src, ld_src, 0..rows, 0..whole, dst, ld);
    }
    transpose_plain(src, ld_src, 0..rows, whole..k, dst, ld);
}

#[inline(always)]
fn transpose_plain(
    src: &[f32],
    ld_src: usize,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    dst: &mut [f32],
    ld: usize,
) {
    for i in rows {
        for p in cols.clone() {
            dst[p * ld + i] = src[i * ld_src + p];
        }
    }
}

/// Rows of activations, `ld` elements apart.
pub(crate) struct Matrix<'a> {
    /// First element of the first row.
    pub(crate) data: &'a [f32],
    /// Elements between rows.
    pub(crate) ld: usize,
}

impl Left for Matrix<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, row: usize, k0: usize, dst: &mut [f32]) {
        dst.copy_from_slice(&self.data[row * self.ld + k0..][..dst.len()]);
    }

    fn direct(&self) -> Option<(&[f32], usize)> {
        Some((self.data, self.ld))
    }

    fn ahead(&self, rows: Range<usize>, k0: usize, k: usize) -> Ahead {
        let at = self.data.as_ptr().wrapping_add(rows.start * self.ld + k0);
        Ahead::new(at.cast(), rows.len(), k * size_of::<f32>(), self.ld * size_of::<f32>())
    }
}
