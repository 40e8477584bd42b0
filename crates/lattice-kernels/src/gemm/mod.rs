//! Blocked matrix product (Goto & van de Geijn 2008) over operands that pack themselves.
//!
//! The threads pack a slab of the right operand together (at most [`SLAB`] elements, streamed from the shared cache); then
//! each takes blocks of rows, packs the left operand (second-level cache) and runs the micro-kernel over both. Operands
//! pack themselves, so a stored f16 weight is widened, a patch of an image gathered, exactly where its values are needed,
//! and never as a whole.

mod micro;
mod pack;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use micro::{Tile, micro};
pub(crate) use pack::{Left, Right, Rows, transpose};

use crate::activation::Activation;
use crate::scratch::{Scratch, SharedMut, aligned};
use crate::simd::{Kernel, MAX_MR, Simd, dispatch};

/// Steps of k whose left block stays in the second-level cache.
const KC: usize = 320;
/// Micro-panels of rows per left block.
const ROW_PANELS: usize = 8;
/// Elements of a packed slab of the right operand: 4 MB.
const SLAB: usize = 1 << 20;
/// Steps of k per slab; longer sums go through the result.
const K_SLAB: usize = 2048;

/// What happens to a block of the result once its sum over k is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// An elementwise function.
    Activation(Activation),
    /// The first half of the columns times the activation of the second half: the result has n / 2 columns.
    Gated(Activation),
}

/// C = finish(A B + row_bias + col_bias + residual) with A [m, k], B [k, n].
pub(crate) struct Product<'a, L, R> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) left: &'a L,
    pub(crate) right: &'a R,
    /// One value per row.
    pub(crate) row_bias: Option<&'a [f32]>,
    /// One value per column.
    pub(crate) col_bias: Option<&'a [f32]>,
    /// Added to the result, [m, n] with rows as far apart as the result's. Not with [`Finish::Gated`].
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) finish: Finish,
    /// Where C goes: element (0, 0) is `out[0]`.
    pub(crate) out: SharedMut,
    /// Elements between rows of C.
    pub(crate) ld_out: usize,
}

/// Cuts `0..len` into `parts` ranges whose lengths are multiples of `unit` (but for the last) and differ by one unit.
pub(crate) fn split(len: usize, parts: usize, unit: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let units = len.div_ceil(unit);
    let parts = parts.clamp(1, units.max(1));
    (0..parts).map(move |i| {
        let at = |i: usize| (units * i / parts * unit).min(len);
        at(i)..at(i + 1)
    })
}

/// Into how many parts the rows and the columns of an [m, n] result are cut for the thread pool.
pub(crate) fn grid(m: usize, n: usize, k: usize) -> (usize, usize) {
    // Below this many multiply-adds a task costs more to hand over than to compute.
    const SMALL: usize = 1 << 19;
    // Fewer rows per task would read the packed slab too often; fewer columns would make packing the rows show.
    const ROWS: usize = ROW_PANELS * MAX_MR;
    const COLUMNS: usize = 128;
    let threads = rayon::current_num_threads();
    let work = m.saturating_mul(n).saturating_mul(k) / SMALL;
    if threads == 1 || work < 2 {
        return (1, 1);
    }
    // A few tasks per thread even out cores that are slowed down by others.
    let wanted = (4 * threads).min(work);
    let rows = (m / ROWS).clamp(1, wanted);
    let columns = (n / COLUMNS).clamp(1, wanted.div_ceil(rows));
    (rows, columns)
}

impl<L: Left, R: Right> Product<'_, L, R> {
    /// Computes C on the thread pool: the threads pack a slab of B together, then share out the rows that it is
    /// multiplied with.
    pub(crate) fn run(&self) {
        let (rows, columns) = grid(self.m, self.width(), self.k);
        dispatch(Block { product: self, rows: 0..self.m, columns: 0..self.width(), parts: [rows, columns] });
    }

    /// Computes one block of C on this thread.
    pub(crate) fn block(&self, rows: Range<usize>, columns: Range<usize>) {
        dispatch(Block { product: self, rows, columns, parts: [1, 1] });
    }

    /// Columns of C.
    fn width(&self) -> usize {
        if self.is_gated() { self.n / 2 } else { self.n }
    }

    fn is_gated(&self) -> bool {
        matches!(self.finish, Finish::Gated(_))
    }

    /// Lets the sums of a tile, rows and columns of A B, begin with what is added to them.
    #[inline(always)]
    fn begin(&self, tile: &mut Tile, rows: Range<usize>, columns: Range<usize>) {
        if let Some(residual) = self.residual {
            let first = rows.start * self.ld_out + columns.start;
            let last = (rows.end - 1) * self.ld_out + columns.end;
            tile.add = residual[first..last].as_ptr();
            tile.ld_add = self.ld_out;
        }
        if let Some(bias) = self.row_bias {
            tile.row_bias = bias[rows].as_ptr();
        }
        if let Some(bias) = self.col_bias {
            tile.col_bias = bias[columns].as_ptr();
        }
    }
}

/// A block of C, and into how many parts of rows and columns the threads share it.
struct Block<'a, 'b, L, R> {
    product: &'a Product<'b, L, R>,
    rows: Range<usize>,
    columns: Range<usize>,
    parts: [usize; 2],
}

impl<L: Left, R: Right> Kernel for Block<'_, '_, L, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.rows.is_empty() || self.columns.is_empty() {
            return;
        }
        let p = self.product;
        let gated = p.is_gated();
        // A gated block keeps its sums in scratch until they are complete, so it takes all of k in one slab.
        let k_slab = if gated { p.k.max(1) } else { K_SLAB };
        let slabs = p.k.div_ceil(k_slab).max(1);
        for (index, ks) in split(p.k, slabs, 1).enumerate() {
            let fitting = SLAB / ks.len().max(1) / if gated { 2 } else { 1 };
            let chunk = (fitting / S::NR * S::NR).max(S::NR);
            let chunks = self.columns.len().div_ceil(chunk);
            for cols in split(self.columns.len(), chunks, S::NR) {
                let slab = Slab {
                    product: p,
                    cols: self.columns.start + cols.start..self.columns.start + cols.end,
                    ks: ks.clone(),
                    first: index == 0,
                    last: index + 1 == slabs,
                };
                slab.run(s, &self.rows, self.parts);
            }
        }
    }
}

/// The contribution of the steps `ks` to the columns `cols` of C: what one packed slab of B serves.
///
/// The slab is packed block of k by block of k; in each the micro-panels of NR columns follow each other, those of the
/// gates after those of the values.
struct Slab<'a, 'b, L, R> {
    product: &'a Product<'b, L, R>,
    cols: Range<usize>,
    ks: Range<usize>,
    /// The sum begins here.
    first: bool,
    /// The sum is complete after this.
    last: bool,
}

impl<L: Left, R: Right> Slab<'_, '_, L, R> {
    /// Micro-panels of NR columns of C.
    fn panels<S: Simd>(&self) -> usize {
        self.cols.len().div_ceil(S::NR)
    }

    /// Values, or values and gates.
    fn halves(&self) -> usize {
        if self.product.is_gated() { 2 } else { 1 }
    }

    /// Blocks of k whose left operand stays in the second-level cache.
    fn k_blocks(&self) -> impl Iterator<Item = Range<usize>> + Clone + use<L, R> {
        split(self.ks.len(), self.ks.len().div_ceil(KC), 1)
    }

    /// Where panel `index` of a half lies in the packed slab for block `kb` of k.
    fn at<S: Simd>(&self, kb: &Range<usize>, half: usize, index: usize) -> usize {
        let panels = self.panels::<S>();
        (kb.start * self.halves() * panels + (half * panels + index) * kb.len()) * S::NR
    }

    /// First column of B and number of columns of a panel.
    fn columns<S: Simd>(&self, half: usize, index: usize) -> (usize, usize) {
        let start = index * S::NR;
        (half * (self.product.n / 2) + self.cols.start + start, S::NR.min(self.cols.len() - start))
    }

    #[inline(always)]
    fn run<S: Simd>(&self, s: S, rows: &Range<usize>, parts: [usize; 2]) {
        let panels = self.panels::<S>();
        let mut right = Scratch::take(aligned(self.halves() * panels * S::NR * self.ks.len()));
        if parts == [1, 1] {
            Pack { slab: self, panels: 0..panels, right: SharedMut::new(&mut right) }.run(s);
            Multiply { slab: self, panels: 0..panels, rows: rows.clone(), right: &right }.run(s);
            return;
        }
        let shared = SharedMut::new(&mut right);
        let packers = 4 * rayon::current_num_threads();
        let packing: Vec<_> = split(panels, packers, 1).collect();
        packing.into_par_iter().for_each(|panels| s.run(Pack { slab: self, panels, right: shared }));
        let columns = (parts[1] * self.cols.len()).div_ceil(self.product.width());
        let tasks: Vec<_> = split(panels, columns, 1)
            .flat_map(|panels| split(rows.len(), parts[0], 1).map(move |rows| (panels.clone(), rows)))
            .collect();
        tasks.into_par_iter().for_each(|(panels, r)| {
            let rows = rows.start + r.start..rows.start + r.end;
            s.run(Multiply { slab: self, panels, rows, right: &right });
        });
    }
}

/// Packs some panels of a slab.
struct Pack<'a, 'b, 'c, L, R> {
    slab: &'a Slab<'b, 'c, L, R>,
    panels: Range<usize>,
    right: SharedMut,
}

impl<L: Left, R: Right> Kernel for Pack<'_, '_, '_, L, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (slab, operand) = (self.slab, self.slab.product.right);
        for kb in slab.k_blocks() {
            let step = operand.step().clamp(1, kb.len().max(1));
            for k in (0..kb.len()).step_by(step) {
                let steps = step.min(kb.len() - k);
                for half in 0..slab.halves() {
                    for index in self.panels.clone() {
                        let (col, cols) = slab.columns::<S>(half, index);
                        let at = slab.at::<S>(&kb, half, index) + k * S::NR;
                        // SAFETY: this task alone packs the panel.
                        let dst = unsafe { self.right.slice(at, steps * S::NR) };
                        operand.pack(s, slab.ks.start + kb.start + k, steps, col, cols, dst);
                    }
                }
            }
        }
    }
}

/// Multiplies some rows of A with some panels of a packed slab.
struct Multiply<'a, 'b, 'c, L, R> {
    slab: &'a Slab<'b, 'c, L, R>,
    panels: Range<usize>,
    rows: Range<usize>,
    right: &'a [f32],
}

impl<L: Left, R: Right> Kernel for Multiply<'_, '_, '_, L, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (slab, p) = (self.slab, self.slab.product);
        let start = self.panels.start * S::NR;
        let cols = slab.cols.start + start..(slab.cols.start + self.panels.end * S::NR).min(slab.cols.end);
        let row_block = ROW_PANELS * S::MR;
        let left_len = aligned(row_block * KC.min(slab.ks.len().max(1)));
        let sums_len = if p.is_gated() { row_block * 2 * cols.len() } else { 0 };
        let mut scratch = Scratch::take(left_len + sums_len);
        let (left, sums) = scratch.split_at_mut(left_len);
        for r in split(self.rows.len(), self.rows.len().div_ceil(row_block), 1) {
            let r = self.rows.start + r.start..self.rows.start + r.end;
            let (out, ld_out) = if p.is_gated() {
                (sums.as_mut_ptr(), 2 * cols.len())
            } else {
                (p.out.at(r.start * p.ld_out + cols.start), p.ld_out)
            };
            for kb in slab.k_blocks() {
                let row_panels = split(r.len(), r.len().div_ceil(S::MR), 1);
                for rp in row_panels.clone() {
                    let dst = &mut left[rp.start * kb.len()..rp.end * kb.len()];
                    p.left.pack(s, r.start + rp.start, rp.len(), slab.ks.start + kb.start, kb.len(), dst);
                }
                let begins = slab.first && kb.start == 0;
                for half in 0..slab.halves() {
                    for index in self.panels.clone() {
                        let (col, existing) = slab.columns::<S>(half, index);
                        let to = half * cols.len() + index * S::NR - start;
                        let b = &self.right[slab.at::<S>(&kb, half, index)..][..kb.len() * S::NR];
                        for rp in row_panels.clone() {
                            // SAFETY: the block's rows and columns lie inside the result (or the sums).
                            let at = unsafe { out.add(rp.start * ld_out + to) };
                            let mut tile = Tile::new(at, ld_out, existing);
                            if begins {
                                p.begin(&mut tile, r.start + rp.start..r.start + rp.end, col..col + existing);
                            } else {
                                tile = tile.accumulate();
                            }
                            let a = &left[rp.start * kb.len()..rp.end * kb.len()];
                            // SAFETY: both panels were packed above for these sizes; the tile lies inside the
                            // block, which this task alone writes.
                            unsafe { micro(s, rp.len(), kb.len(), a.as_ptr(), rp.len(), b.as_ptr(), &tile) };
                        }
                    }
                }
            }
            if slab.last {
                finish(s, p, &r, &cols, sums);
            }
        }
    }
}

/// Applies what follows the sum to the block `rows` x `cols`.
#[inline(always)]
fn finish<S: Simd, L, R>(
    s: S,
    p: &Product<'_, L, R>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    sums: &[f32],
) {
    let width = cols.len();
    for (i, row) in rows.clone().enumerate() {
        if p.finish == Finish::Activation(Activation::None) {
            return;
        }
        // SAFETY: this task alone writes the block.
        let out = unsafe { p.out.slice(row * p.ld_out + cols.start, width) };
        match p.finish {
            Finish::Activation(f) => f.apply_in_place(s, out),
            Finish::Gated(f) => {
                let (value, gate) = sums[i * 2 * width..(i + 1) * 2 * width].split_at(width);
                f.gate(s, value, gate, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
