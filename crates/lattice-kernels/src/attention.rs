//! Scaled dot-product attention in tiles, with the softmax kept up to date as keys come in (Milakov & Gimelshein 2018;
//! Rabe & Staats 2021; Dao et al. 2022).
//!
//! A task takes a block of queries of one head and walks through the keys block by block. Everything is held
//! transposed, queries along vectors: a tile of scores S^T = K Q^T has its softmax over rows, without sums across a
//! vector, and is then, as it lies, the right operand of O^T += V^T S^T. Scratch is a fixed number of blocks per thread,
//! whatever the lengths.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{Near, Rows, Tile, copy, micro, split, transpose};
use crate::scratch::{Scratch, SharedMut, aligned};
use crate::simd::{Kernel, MAX_NR, NV, Simd, dispatch, math};

/// Queries of a task. Fewer would make packing the keys show.
const QUERIES: usize = 512;
/// Elements of the blocks of queries and of results.
const QUERY_BLOCK: usize = 1 << 17;
/// Keys of a block.
const KEYS: usize = 256;
/// Elements of the blocks of keys and of values.
const KEY_BLOCK: usize = 1 << 16;

/// Rows of one of the inputs [batch, length, heads * width], as they lie in memory.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    pub(crate) data: &'a [f32],
    /// Elements between batches.
    pub(crate) batch: usize,
    /// Elements between positions.
    pub(crate) row: usize,
}

impl<'a> Sequence<'a> {
    /// From element `column` of position `row` on.
    fn from(&self, batch: usize, row: usize, column: usize) -> &'a [f32] {
        &self.data[batch * self.batch + row * self.row + column..]
    }
}

/// A bias [batch, heads, queries, keys] of the scores; keys lie side by side, other axes may be repeated (step 0).
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a> {
    pub(crate) data: &'a [f32],
    /// Elements between batches, heads and queries.
    pub(crate) steps: [usize; 3],
}

/// softmax(q k^T scale + bias) v for every head of every batch.
pub(crate) struct Attention<'a> {
    pub(crate) q: Sequence<'a>,
    pub(crate) k: Sequence<'a>,
    pub(crate) v: Sequence<'a>,
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) width: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) scale: f32,
    pub(crate) bias: Option<Bias<'a>>,
    /// Query i only sees keys up to i.
    pub(crate) causal: bool,
}

impl Attention<'_> {
    /// Writes the result [batch, queries, heads * width]. A query that sees no key (none there, or all of bias -inf) gets
    /// zeros.
    pub(crate) fn run(&self, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        let shared = SharedMut::new(out);
        let threads = rayon::current_num_threads();
        let even = (self.batch * self.heads * self.queries).div_ceil(2 * threads);
        let block = QUERIES.min(QUERY_BLOCK / self.width).min(even).next_multiple_of(MAX_NR);
        let parts = self.queries.div_ceil(block);
        let tasks: Vec<_> = (0..self.batch * self.heads)
            .flat_map(|i| split(self.queries, parts, MAX_NR).map(move |q| (i, q)))
            .collect();
        tasks.into_par_iter().for_each(|(i, queries)| {
            let (batch, head) = (i / self.heads, i % self.heads);
            dispatch(Task { all: self, batch, head, queries, out: shared });
        });
    }
}

/// Some queries of one head.
struct Task<'a> {
    all: &'a Attention<'a>,
    batch: usize,
    head: usize,
    queries: Range<usize>,
    out: SharedMut,
}

/// One panel of NR queries: its operands and its state, all [.., NR].
struct Panel<'a> {
    /// Queries that exist.
    queries: Range<usize>,
    /// Q^T, scaled [width, NR].
    q: &'a mut [f32],
    /// O^T, not yet divided by `sum` [width, NR].
    out: &'a mut [f32],
    /// Largest score so far [NR].
    max: &'a mut [f32],
    /// Sum of e^(score - max) so far [NR].
    sum: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = self.all;
        let width = a.width;
        let block = (KEY_BLOCK / width).clamp(S::NR, KEYS);
        let panel_len = 2 * width * S::NR + 2 * S::NR;
        let panels = self.queries.len().div_ceil(S::NR);
        let bias_len = if a.bias.is_some() { block * S::NR } else { 0 };
        let operand = aligned(width * block);
        let mut scratch = Scratch::take(panels * panel_len + 2 * operand + block * S::NR + bias_len);
        let (panels, rest) = scratch.split_at_mut(panels * panel_len);
        let (k_block, rest) = rest.split_at_mut(operand);
        let (v_block, rest) = rest.split_at_mut(operand);
        let (scores, bias) = rest.split_at_mut(block * S::NR);

        for panel in self.panels::<S>(panels) {
            self.start_panel(s, panel);
        }
        // Keys after the last query are seen by none.
        let keys = if a.causal { a.keys.min(self.queries.end) } else { a.keys };
        for first in (0..keys).step_by(block) {
            let keys = first..(first + block).min(keys);
            let (k, v) = (self.rows(&a.k, keys.start), self.rows(&a.v, keys.start));
            transpose(s, k, a.k.row, keys.len(), width, k_block, block);
            for (i, row) in v_block.chunks_exact_mut(width).enumerate().take(keys.len()) {
                copy(s, &v[i * a.v.row..i * a.v.row + width], row);
            }
            for mut panel in self.panels::<S>(panels) {
                if a.causal && keys.start >= panel.queries.end {
                    continue;
                }
                let scores = &mut scores[..keys.len() * S::NR];
                self.scores(s, &panel, &keys, k_block, block, bias, scores);
                softmax_step(s, &mut panel, scores);
                values(s, v_block, width, scores, panel.out);
            }
        }
        for panel in self.panels::<S>(panels) {
            self.finish_panel(s, panel);
        }
    }
}

impl<'a> Task<'a> {
    /// The panels that lie in `buffer`.
    #[inline(always)]
    fn panels<'b, S: Simd>(&self, buffer: &'b mut [f32]) -> impl Iterator<Item = Panel<'b>> + use<'b, S> {
        let len = self.all.width * S::NR;
        let all = self.queries.clone();
        buffer.chunks_exact_mut(2 * len + 2 * S::NR).enumerate().map(move |(i, panel)| {
            let first = all.start + i * S::NR;
            let (q, rest) = panel.split_at_mut(len);
            let (out, rest) = rest.split_at_mut(len);
            let (max, sum) = rest.split_at_mut(S::NR);
            Panel { queries: first..(first + S::NR).min(all.end), q, out, max, sum }
        })
    }

    /// This head's part of a sequence, from position `row` on.
    fn rows(&self, x: &Sequence<'a>, row: usize) -> &'a [f32] {
        x.from(self.batch, row, self.head * self.all.width)
    }

    #[inline(always)]
    fn start_panel<S: Simd>(&self, s: S, panel: Panel<'_>) {
        let a = self.all;
        let q = self.rows(&a.q, panel.queries.start);
        if panel.queries.len() < S::NR {
            panel.q.fill(0.0);
        }
        transpose(s, q, a.q.row, panel.queries.len(), a.width, panel.q, S::NR);
        for x in panel.q {
            *x *= a.scale;
        }
        panel.out.fill(0.0);
        panel.max.fill(f32::NEG_INFINITY);
        panel.sum.fill(0.0);
    }

    /// `scores` [keys, NR] = K Q^T + bias^T, -inf where a key is masked. `k` is K^T, rows `ld` apart.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        s: S,
        panel: &Panel<'_>,
        keys: &Range<usize>,
        k: &[f32],
        ld: usize,
        bias: &mut [f32],
        scores: &mut [f32],
    ) {
        let (a, queries) = (self.all, &panel.queries);
        if let Some(b) = &a.bias {
            let [batch, head, query] = b.steps;
            let at = batch * self.batch + head * self.head + query * queries.start + keys.start;
            if queries.len() < S::NR {
                bias.fill(0.0);
            }
            transpose(s, &b.data[at..], query, queries.len(), keys.len(), bias, S::NR);
        }
        assert!(k.len() >= (a.width - 1) * ld + keys.len() && panel.q.len() == a.width * S::NR);
        for rows in split(keys.len(), keys.len().div_ceil(S::MR), 1) {
            let at = rows.start * S::NR..rows.end * S::NR;
            let mut tile = Tile::new(scores[at.clone()].as_mut_ptr(), S::NR, S::NR);
            if a.bias.is_some() {
                tile.add = bias[at].as_ptr();
                tile.ld_add = S::NR;
            }
            let left = Rows::transposed(k[rows.start..].as_ptr(), ld);
            // SAFETY: the assertion covers both operands; the tile's rows of scores (and bias) were just sliced.
            unsafe { micro::<S, 1, _>(s, rows.len(), a.width, left, panel.q.as_ptr(), &tile, Near) };
        }
        if a.causal {
            for (key, row) in keys.clone().zip(scores.chunks_exact_mut(S::NR)) {
                let blind = key.saturating_sub(queries.start).min(S::NR);
                row[..blind].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Divides by the sums and writes the panel's rows of the result.
    #[inline(always)]
    fn finish_panel<S: Simd>(&self, s: S, panel: Panel<'_>) {
        let width = self.all.width;
        let mut factors = [0f32; MAX_NR];
        for (f, &sum) in factors.iter_mut().zip(panel.sum.iter()) {
            *f = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        }
        for row in panel.out.chunks_exact_mut(S::NR) {
            for (x, f) in row.iter_mut().zip(&factors) {
                *x *= f;
            }
        }
        // The queries are no longer needed: their place takes the rows of the result.
        let rows = panel.q;
        transpose(s, panel.out, S::NR, width, panel.queries.len(), rows, width);
        for (query, row) in panel.queries.zip(rows.chunks_exact(width)) {
            let position = self.batch * self.all.queries + query;
            let at = (position * self.all.heads + self.head) * width;
            // SAFETY: this head's part of this query's row is written by this task alone.
            copy(s, row, unsafe { self.out.slice(at, width) });
        }
    }
}

/// Scores [keys, NR] become e^(score - max); the panel's maxima, sums and results so far are brought to the new maxima.
#[inline(always)]
fn softmax_step<S: Simd>(s: S, panel: &mut Panel<'_>, scores: &mut [f32]) {
    let keys = scores.len() / S::NR;
    assert!(panel.max.len() == S::NR && panel.sum.len() == S::NR && panel.out.len().is_multiple_of(S::NR));
    let mut scales = [s.zero(); NV];
    for (v, scale) in scales.iter_mut().enumerate() {
        let lane = v * S::LANES;
        // SAFETY: NR lanes of maxima, sums and each of `keys` scores, by the assertion.
        unsafe {
            let column = scores.as_mut_ptr().add(lane);
            let old = s.load(panel.max.as_ptr().add(lane));
            let mut max = [old; 4];
            for i in (0..keys).step_by(4) {
                for (j, m) in max.iter_mut().enumerate() {
                    // The last rows may be looked at twice.
                    *m = s.max(*m, s.load(column.add((i + j).min(keys - 1) * S::NR)));
                }
            }
            let max = s.max(s.max(max[0], max[1]), s.max(max[2], max[3]));
            s.store(panel.max.as_mut_ptr().add(lane), max);
            // Where all is masked so far, any finite number keeps -inf - max from being NaN.
            let max = s.if_less(max, s.splat(f32::MIN), s.zero(), max);
            let mut sum = s.zero();
            for i in 0..keys {
                let at = column.add(i * S::NR);
                let e = math::exp_nonpositive(s, s.sub(s.load(at), max));
                s.store(at, e);
                sum = s.add(sum, e);
            }
            *scale = math::exp_nonpositive(s, s.sub(old, max));
            let total = s.fma(s.load(panel.sum.as_ptr().add(lane)), *scale, sum);
            s.store(panel.sum.as_mut_ptr().add(lane), total);
        }
    }
    for row in panel.out.chunks_exact_mut(S::NR) {
        for (v, scale) in scales.iter().enumerate() {
            // SAFETY: NR lanes.
            unsafe {
                let at = row.as_mut_ptr().add(v * S::LANES);
                s.store(at, s.mul(s.load(at), *scale));
            }
        }
    }
}

/// out [width, NR] += V^T P, with V [keys, width] and P [keys, NR].
#[inline(always)]
fn values<S: Simd>(s: S, v: &[f32], width: usize, p: &[f32], out: &mut [f32]) {
    let keys = p.len() / S::NR;
    assert!(v.len() >= keys * width && out.len() == width * S::NR);
    for rows in split(width, width.div_ceil(S::MR), 1) {
        let tile =
            Tile::new(out[rows.start * S::NR..rows.end * S::NR].as_mut_ptr(), S::NR, S::NR).accumulate();
        let left = Rows::transposed(v[rows.start..].as_ptr(), width);
        // SAFETY: the assertion covers both operands; the tile's rows were just sliced.
        unsafe { micro::<S, 1, _>(s, rows.len(), keys, left, p.as_ptr(), &tile, Near) };
    }
}
