//! A stored matrix with products of narrow matrices added to it, in one pass: what a LoRA (Hu et al., *LoRA: Low-rank adaptation of large
//! language models*, 2021, eq. 3) makes of a weight.

use std::ops::Range;

use bytes::Bytes;
use half::bf16;

use crate::gemm::{ANY, Ahead, Rows, Tile, micro, split};
use crate::scratch::{Scratch, aligned};
use crate::simd::{Kernel, Simd, dispatch};
use crate::{StoredDType, Weight};

/// Columns of a tile; with as many rows as a micro-tile has, it stays in the first-level cache.
const COLUMNS: usize = 512;

/// `W * model + factor * up down` for W [rows, columns], up [rows, rank], down [rank, columns].
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// Factor of the matrix as it was.
    pub model: f32,
    /// Factor of the product.
    pub factor: f32,
    /// [rows, rank].
    pub up: &'a [f32],
    /// [rank, columns].
    pub down: &'a [f32],
    /// Inner size of the product.
    pub rank: usize,
}

/// The bytes of `weight`, seen as a matrix of the first axis by all others, with one product after the other added in f32 and rounded to
/// nearest, in its own type. `None` where the type is not f32, f16 or bf16 or has a scale, where the matrix has no elements, or where
/// sizes do not fit.
///
/// Runs on the calling thread: parameters are patched in parallel.
pub fn add_low_rank(weight: &Weight, terms: &[LowRank<'_>]) -> Option<Bytes> {
    let plain = matches!(weight.dtype(), StoredDType::F32 | StoredDType::F16 | StoredDType::BF16)
        && weight.scale().is_none()
        && cfg!(target_endian = "little");
    let [rows, rest @ ..] = weight.dims() else { return None };
    let (rows, columns) = (*rows, rest.iter().product::<usize>());
    let fits = |term: &LowRank<'_>| {
        Some(term.up.len()) == rows.checked_mul(term.rank)
            && Some(term.down.len()) == columns.checked_mul(term.rank)
    };
    if !plain || rows == 0 || columns == 0 || !terms.iter().all(fits) {
        return None;
    }
    let length = weight.bytes().len();
    let mut out: Vec<u8> = Vec::with_capacity(length);
    dispatch(Sum { weight, terms, rows, columns, out: out.as_mut_ptr() });
    // SAFETY: the tiles cover all rows and columns, and each of their rows was written.
    unsafe { out.set_len(length) };
    Some(out.into())
}

struct Sum<'a> {
    weight: &'a Weight,
    terms: &'a [LowRank<'a>],
    rows: usize,
    columns: usize,
    /// Bytes of the result, not yet initialised.
    out: *mut u8,
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let chunks = self.columns.div_ceil(COLUMNS);
        let width = self.columns.min(COLUMNS).next_multiple_of(S::NR);
        // Panels of some columns of each term's `down`, one term after the other.
        let downs = || self.terms.iter().map(|term| aligned(width * term.rank));
        let len = downs().sum::<usize>();
        let mut scratch = Scratch::take(len + S::MR * width);
        let (packed, tile) = scratch.split_at_mut(len);
        for columns in split(self.columns, chunks, S::NR) {
            let panels = columns.len().next_multiple_of(S::NR);
            let mut rest = &mut *packed;
            for (term, len) in self.terms.iter().zip(downs()) {
                let (down, others) = rest.split_at_mut(len);
                self.pack::<S>(term, &columns, down);
                rest = others;
            }
            for rows in split(self.rows, self.rows.div_ceil(S::MR), 1) {
                self.read(s, &rows, &columns, tile, width);
                let mut rest = &*packed;
                for (term, len) in self.terms.iter().zip(downs()) {
                    let (down, others) = rest.split_at(len);
                    rest = others;
                    if term.model != 1.0 {
                        for v in &mut tile[..rows.len() * width] {
                            *v *= term.model;
                        }
                    }
                    let up = &term.up[rows.start * term.rank..rows.end * term.rank];
                    let ahead = |row| self.ahead(&rows, row, &columns);
                    multiply_add(
                        s,
                        up,
                        rows.len(),
                        &down[..panels * term.rank],
                        term.rank,
                        ahead,
                        tile,
                        width,
                    );
                }
                self.write(s, &rows, &columns, tile, width);
            }
        }
    }
}

/// tile += up down for up [rows, rank] and panels [rank][NR] of `down`; rows of the tile lie `width` apart. Panel i asks for `ahead(i)`
/// meanwhile.
#[inline(always)]
fn multiply_add<S: Simd>(
    s: S,
    up: &[f32],
    rows: usize,
    down: &[f32],
    rank: usize,
    ahead: impl Fn(usize) -> Ahead,
    tile: &mut [f32],
    width: usize,
) {
    assert!(up.len() == rows * rank && tile.len() >= rows * width && width.is_multiple_of(S::NR));
    let left = Rows::plain(up.as_ptr(), rank);
    for (index, panel) in down.chunks_exact((rank * S::NR).max(1)).enumerate() {
        assert!((index + 1) * S::NR <= width);
        let sums = Tile::new(tile[index * S::NR..].as_mut_ptr(), width, S::NR).accumulate();
        // SAFETY: `up` has these rows, and the tile its rows of the panel's columns, by the assertions.
        unsafe { micro::<S, ANY, _>(s, rows, rank, left, panel.as_ptr(), &sums, ahead(index)) };
    }
}

impl Sum<'_> {
    /// What is read and written when a tile is done: row `row` of the weight's next tile, and of this one's place in the result.
    #[inline(always)]
    fn ahead(&self, rows: &Range<usize>, row: usize, columns: &Range<usize>) -> Ahead {
        if row >= rows.len() {
            return Ahead::NONE;
        }
        let size = self.weight.dtype().size();
        let at = |row: usize| (row * self.columns + columns.start) * size;
        let next = self.weight.bytes().as_ptr().wrapping_add(at(rows.end + row));
        let result = self.out.wrapping_add(at(rows.start + row)).cast_const();
        Ahead::new(next, 2, columns.len() * size, (result.addr()).wrapping_sub(next.addr()))
    }

    /// Panels [rank][NR] of `columns` of a term's `down` times its factor, zeros beyond them.
    #[inline(always)]
    fn pack<S: Simd>(&self, term: &LowRank<'_>, columns: &Range<usize>, to: &mut [f32]) {
        for (k, row) in term.down.chunks_exact(self.columns).enumerate() {
            for (panel, from) in row[columns.clone()].chunks(S::NR).enumerate() {
                let to = &mut to[(panel * term.rank + k) * S::NR..][..S::NR];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from * term.factor;
                }
                to[from.len()..].fill(0.0);
            }
        }
    }

    /// Widens a tile of the weight: rows `width` apart.
    #[inline(always)]
    fn read<S: Simd>(
        &self,
        s: S,
        rows: &Range<usize>,
        columns: &Range<usize>,
        tile: &mut [f32],
        width: usize,
    ) {
        for (row, to) in rows.clone().zip(tile.chunks_exact_mut(width)) {
            self.weight.read_f32_inline(s, row * self.columns + columns.start, &mut to[..columns.len()]);
        }
    }

    /// Rounds a tile to where it belongs.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, rows: &Range<usize>, columns: &Range<usize>, tile: &[f32], width: usize) {
        let size = self.weight.dtype().size();
        for (row, from) in rows.clone().zip(tile.chunks_exact(width)) {
            let from = &from[..columns.len()];
            // SAFETY: `out` has room for all rows; the row's columns end before the next row.
            unsafe {
                let to = self.out.add((row * self.columns + columns.start) * size);
                match self.weight.dtype() {
                    StoredDType::F16 => round_f16(s, from, to),
                    StoredDType::BF16 => {
                        for (i, &v) in from.iter().enumerate() {
                            to.add(2 * i).cast::<[u8; 2]>().write(bf16::from_f32(v).to_le_bytes());
                        }
                    }
                    _ => std::ptr::copy_nonoverlapping(from.as_ptr().cast(), to, from.len() * size),
                }
            }
        }
    }
}

/// Rounds to IEEE halves.
///
/// # Safety
/// `to` is valid for writing two bytes per element.
#[inline(always)]
unsafe fn round_f16<S: Simd>(s: S, from: &[f32], to: *mut u8) {
    let whole = from.len() - from.len() % S::LANES;
    // SAFETY: elements below the length, by the caller's promise.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            s.store_f16(to.add(2 * i), s.load(from.as_ptr().add(i)));
        }
        for (i, &v) in from.iter().enumerate().skip(whole) {
            to.add(2 * i).cast::<[u8; 2]>().write(half::f16::from_f32(v).to_le_bytes());
        }
    }
}
