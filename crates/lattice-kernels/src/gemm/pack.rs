//! Operands of the blocked product, brought into panels that the micro-kernel reads front to back.

use crate::simd::Simd;

/// The left operand A [m, k].
pub(crate) trait Left: Sync {
    /// Writes `dst[p * rows + i] = A[row + i, k0 + p]` for i < rows, p < k.
    ///
    /// `dst` holds `rows * k` elements.
    fn pack<S: Simd>(&self, s: S, row: usize, rows: usize, k0: usize, k: usize, dst: &mut [f32]);
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
}

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
        let mut i = 0;
        loop {
            for p in (0..whole).step_by(8) {
                // SAFETY: rows i..i+8 and columns p..p+8 exist by the assertion.
                unsafe { s.transpose8(from.add(i * ld_src + p), ld_src, to.add(p * ld + i), ld) };
            }
            if i + 8 == rows {
                break;
            }
            // The last block may overlap the one before: the same values are written twice.
            i = (i + 8).min(rows - 8);
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
pub(crate) struct Rows<'a> {
    /// First element of the first row.
    pub(crate) data: &'a [f32],
    /// Elements between rows.
    pub(crate) ld: usize,
}

impl Left for Rows<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, row: usize, rows: usize, k0: usize, k: usize, dst: &mut [f32]) {
        transpose(s, &self.data[row * self.ld + k0..], self.ld, rows, k, dst, rows);
    }
}
