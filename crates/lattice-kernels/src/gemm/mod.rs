//! Blocked matrix product (Goto & van de Geijn 2008) over operands that pack themselves.
//!
//! The result is cut into tasks, one per thread at a time; a task packs a slab of the right operand (at most
//! [`SLAB`] elements, streamed from the shared cache), then for blocks of rows packs the left operand (second-level
//! cache) and runs the micro-kernel over both. Operands pack themselves, so a stored f16 weight is widened, a patch of an
//! image gathered, exactly where its values are needed, and never as a whole.

mod micro;
mod pack;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use micro::{ANY, Ahead, Near, Rows, Tile, micro};
pub(crate) use pack::{Left, Matrix, Right, copy, transpose};

use crate::activation::Activation;
use crate::scratch::{Scratch, SharedMut, aligned};
use crate::simd::{Kernel, Simd, dispatch};

/// Blocks of k begin at multiples of this: a cache line of the operands' rows.
const K_UNIT: usize = 16;
/// Steps of k whose left block stays in the second-level cache.
const KC: usize = 320;
/// Elements between rows of the left block: one line more than they have, so that the rows of a micro-tile lie in different
/// sets of the first-level cache.
const LEFT_ROW: usize = KC + 16;
/// Micro-panels of rows per left block.
const ROW_PANELS: usize = 8;
/// Elements of a packed slab of the right operand: 4 MB.
const SLAB: usize = 1 << 20;
/// Elements of the left operand's part that are brought over once for all slabs: 1 MB.
const RESIDENT: usize = 1 << 18;
/// Elements of a packed slab in that case: 256 kB, in the second-level cache too.
const RESIDENT_SLAB: usize = 1 << 16;
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
    // Fewer rows (columns) per task would make packing the other operand show.
    const ROWS: usize = 256;
    const COLUMNS: usize = 64;
    // Time to bring an element of the right operand into its panel, which turns it round, in times of the left one's, which
    // copies it.
    const RIGHT_COST: f64 = 5.0;
    let threads = rayon::current_num_threads();
    let work = m.saturating_mul(n).saturating_mul(k) / SMALL;
    if threads == 1 || work < 2 {
        return (1, 1);
    }
    // A few tasks per thread even out cores that are slowed down by others.
    let wanted = (4 * threads).min(work);
    // Each part of the rows packs the right operand anew, each part of the columns the left one: `rows * n * RIGHT_COST +
    // columns * m` is least, with `rows * columns` as wanted, at
    let rows = (wanted as f64 * m as f64 / (n as f64 * RIGHT_COST)).sqrt().round() as usize;
    let rows = rows.clamp(1, wanted).min((m / ROWS).max(1));
    let columns = (n / COLUMNS).clamp(1, wanted.div_ceil(rows));
    ((wanted / columns).clamp(rows, (m / ROWS).max(rows)), columns)
}

impl<L: Left, R: Right> Product<'_, L, R> {
    /// Computes C on the thread pool.
    pub(crate) fn run(&self) {
        let (rows, columns) = grid(self.m, self.width(), self.k);
        let tasks: Vec<_> = split(self.width(), columns, crate::simd::MAX_NR)
            .flat_map(|c| split(self.m, rows, 1).map(move |r| (r, c.clone())))
            .collect();
        tasks.into_par_iter().for_each(|(rows, columns)| self.block(rows, columns));
    }

    /// Columns of C.
    fn width(&self) -> usize {
        if self.is_gated() { self.n / 2 } else { self.n }
    }

    fn is_gated(&self) -> bool {
        matches!(self.finish, Finish::Gated(_))
    }

    /// Computes one block of C on this thread.
    pub(crate) fn block(&self, rows: Range<usize>, columns: Range<usize>) {
        dispatch(Block { product: self, rows, columns });
    }
}

struct Block<'a, 'b, L, R> {
    product: &'a Product<'b, L, R>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<L: Left, R: Right> Kernel for Block<'_, '_, L, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.rows.is_empty() || self.columns.is_empty() {
            return;
        }
        let p = self.product;
        let halves = if p.is_gated() { 2 } else { 1 };
        // A gated block keeps its sums in scratch until they are complete, so it takes all of k in one slab.
        let k_slab = if p.is_gated() { p.k.max(1) } else { K_SLAB };
        let slabs = p.k.div_ceil(k_slab).max(1);
        for (index, ks) in split(p.k, slabs, K_UNIT).enumerate() {
            let k_blocks = ks.len().div_ceil(KC).max(1);
            // Narrow slabs only pay where they are asked for ahead: they would break what lies in order into short pieces.
            let resident = self.rows.len() * k_blocks * LEFT_ROW <= RESIDENT
                && p.right.ahead(0..0, ks.start, ks.len()).is_some();
            let fitting = if resident { RESIDENT_SLAB } else { SLAB } / ks.len().max(1) / halves;
            let chunk = (fitting / S::NR * S::NR).max(S::NR);
            let chunks = self.columns.len().div_ceil(chunk);
            let row_block = if resident { self.rows.len() } else { ROW_PANELS * S::MR };
            let widest = self.columns.len().div_ceil(chunks).next_multiple_of(S::NR) * halves;
            let right_len = aligned(widest * ks.len());
            let in_place = in_place(p.left);
            let left_len = match in_place {
                Some(_) => 0,
                None if resident => row_block * LEFT_ROW * k_blocks,
                None => row_block * LEFT_ROW,
            };
            let sums_len = if p.is_gated() { row_block * widest } else { 0 };
            let mut scratch = Scratch::take(right_len + left_len + sums_len);
            let (right, rest) = scratch.split_at_mut(right_len);
            let (left, sums) = rest.split_at_mut(left_len);
            for (chunk, cols) in split(self.columns.len(), chunks, S::NR).enumerate() {
                let slab = Slab {
                    product: p,
                    rows: self.rows.clone(),
                    cols: self.columns.start + cols.start..self.columns.start + cols.end,
                    ks: ks.clone(),
                    row_block,
                    resident,
                    in_place,
                    first: index == 0,
                    last: index + 1 == slabs,
                };
                slab.run(s, right, left, sums, chunk > 0);
            }
        }
    }
}

/// The rows of the left operand, if the micro-kernel can read them where they lie: not where rows are so far apart that those of a tile
/// fall into one or two sets of the first-level cache.
fn in_place<L: Left>(left: &L) -> Option<(&[f32], usize)> {
    left.direct().filter(|(_, ld)| !ld.is_multiple_of(512))
}

/// The contribution of the steps `ks` to the block `rows` x `cols`.
struct Slab<'a, 'b, L, R> {
    product: &'a Product<'b, L, R>,
    rows: Range<usize>,
    cols: Range<usize>,
    ks: Range<usize>,
    /// Rows of the left operand that are held at a time.
    row_block: usize,
    /// All of the left operand's part is held.
    resident: bool,
    /// The left operand's rows where they lie, and how far apart.
    in_place: Option<(&'a [f32], usize)>,
    /// Nothing was added to the result before.
    first: bool,
    /// Nothing will be added after.
    last: bool,
}

/// One packed micro-panel of the right operand: where its columns come from and where their sums go.
struct Panel {
    /// First column of B.
    col: usize,
    /// Columns that exist.
    cols: usize,
    /// First column in the block of results.
    out: usize,
}

impl<L: Left, R: Right> Slab<'_, '_, L, R> {
    /// `again`: another slab of the same steps was computed before.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, right: &mut [f32], left: &mut [f32], sums: &mut [f32], again: bool) {
        let has_left = self.in_place.is_some() || self.resident && again;
        let (p, rows, cols, ks) = (self.product, &self.rows, &self.cols, &self.ks);
        let gated = p.is_gated();
        let width = cols.len();
        let panels = self.panels::<S>();
        let k_blocks = split(ks.len(), ks.len().div_ceil(KC), K_UNIT);
        for kb in k_blocks.clone() {
            let step = p.right.step().clamp(1, kb.len().max(1));
            for k in (0..kb.len()).step_by(step) {
                let steps = step.min(kb.len() - k);
                for (index, panel) in panels.iter().enumerate() {
                    let at = (kb.start * panels.len() + index * kb.len() + k) * S::NR;
                    let dst = &mut right[at..at + steps * S::NR];
                    p.right.pack(s, ks.start + kb.start + k, steps, panel.col, panel.cols, dst);
                }
            }
        }
        for r in split(rows.len(), rows.len().div_ceil(self.row_block), 1) {
            let r = rows.start + r.start..rows.start + r.end;
            let (out, ld_out) = if gated {
                (sums.as_mut_ptr(), 2 * width)
            } else {
                (p.out.at(r.start * p.ld_out + cols.start), p.ld_out)
            };
            for (index, kb) in k_blocks.clone().enumerate() {
                let row_panels = split(r.len(), r.len().div_ceil(S::MR), 1);
                let skip =
                    if self.resident && self.in_place.is_none() { index * r.len() * LEFT_ROW } else { 0 };
                let left = &mut left[skip..];
                if !has_left {
                    for (row, dst) in r.clone().zip(left.chunks_exact_mut(LEFT_ROW)) {
                        p.left.row(s, row, ks.start + kb.start, &mut dst[..kb.len()]);
                    }
                }
                let begins = self.first && kb.start == 0;
                let calls = panels.len() * row_panels.clone().count();
                let mut call = 0;
                for (index, panel) in panels.iter().enumerate() {
                    let at = (kb.start * panels.len() + index * kb.len()) * S::NR;
                    let b = &right[at..at + kb.len() * S::NR];
                    for rp in row_panels.clone() {
                        // SAFETY: the block's rows and columns lie inside the result (or the sums).
                        let mut tile =
                            Tile::new(unsafe { out.add(rp.start * ld_out + panel.out) }, ld_out, panel.cols);
                        if begins {
                            if let Some(bias) = p.row_bias {
                                tile.row_bias = bias[r.start + rp.start..r.start + rp.end].as_ptr();
                            }
                            if let Some(bias) = p.col_bias {
                                tile.col_bias = bias[panel.col..panel.col + panel.cols].as_ptr();
                            }
                            if let Some(residual) = p.residual {
                                let start = (r.start + rp.start) * p.ld_out + panel.col;
                                let end = (r.start + rp.end - 1) * p.ld_out + panel.col + panel.cols;
                                tile.add = residual[start..end].as_ptr();
                                tile.ld_add = p.ld_out;
                            }
                        } else {
                            tile = tile.accumulate();
                        }
                        let ahead = self.ahead::<S>(&r, &kb, panel, call, calls);
                        call += 1;
                        // SAFETY: rows and panel were brought there above for these sizes, or lie in the slice;
                        // the tile lies inside the block, which this task alone writes.
                        unsafe {
                            if let Some((all, ld)) = self.in_place {
                                let start = (r.start + rp.start) * ld + ks.start + kb.start;
                                let a = &all[start..start + (rp.len() - 1) * ld + kb.len()];
                                let a = Rows::plain(a.as_ptr(), ld);
                                micro::<S, ANY, _>(s, rp.len(), kb.len(), a, b.as_ptr(), &tile, ahead);
                            } else {
                                let a = &left[rp.start * LEFT_ROW..rp.end * LEFT_ROW];
                                let a = Rows::plain(a.as_ptr(), LEFT_ROW);
                                micro::<S, LEFT_ROW, _>(s, rp.len(), kb.len(), a, b.as_ptr(), &tile, ahead);
                            }
                        }
                    }
                }
            }
            if self.last {
                finish(s, p, &r, cols, sums);
            }
        }
    }

    fn panels<S: Simd>(&self) -> Vec<Panel> {
        let width = self.cols.len();
        let mut panels = Vec::with_capacity(2 * width.div_ceil(S::NR));
        for half in 0..if self.product.is_gated() { 2 } else { 1 } {
            for j in (0..width).step_by(S::NR) {
                let col = half * (self.product.n / 2) + self.cols.start + j;
                panels.push(Panel { col, cols: S::NR.min(width - j), out: half * width + j });
            }
        }
        panels
    }

    /// What the micro-kernel's call `call` of `calls` over the steps `kb` asks for: its share of the rows that come next. That is the
    /// same panel of the next slab where the left operand is held, or else the next block of the left operand.
    fn ahead<S: Simd>(
        &self,
        r: &Range<usize>,
        kb: &Range<usize>,
        panel: &Panel,
        call: usize,
        calls: usize,
    ) -> Ahead {
        let (p, rows) = (self.product, &self.rows);
        let share = |all: Range<usize>, part: usize, parts: usize| {
            let at = |part: usize| all.start + all.len() * part / parts;
            at(part)..at(part + 1)
        };
        if self.resident {
            let row_panels = r.len().div_ceil(S::MR);
            let next = panel.col + self.cols.len();
            // The last slab's next one is another task's: most likely this thread's next.
            let end = if panel.out < self.cols.len() { p.width() } else { p.n };
            let next = next.min(end)..(next + S::NR).min(end);
            let part = share(next, call % row_panels, row_panels);
            return p.right.ahead(part, self.ks.start + kb.start, kb.len()).unwrap_or(Ahead::NONE);
        }
        let (next, k0) = if kb.end < self.ks.len() {
            (r.clone(), kb.end)
        } else {
            (r.end..(r.end + r.len()).min(rows.end), 0)
        };
        p.left.ahead(share(next, call, calls), self.ks.start + k0, kb.len())
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
