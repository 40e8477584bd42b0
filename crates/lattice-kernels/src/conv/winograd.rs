//! 3x3 convolution of stride 1 by minimal filtering F(4x4, 3x3) (Winograd 1980; Lavin & Gray 2016).
//!
//! A 4x4 tile of the result is A^T [(G g G^T) * (B^T d B)] A, with g the 3x3 filter, d the 6x6 patch the tile sees and *
//! elementwise: 36 multiplications per pair of channels instead of 144. Summed over the input channels, each of the 36
//! positions is a matrix product [tiles, in] [in, out].
//!
//! The matrices follow from interpolation at 0, ±5/8, ±3/2 and infinity. The usual points 0, ±1, ±2 have simpler
//! constants and five times the rounding error: the powers of 5/8 and 3/2 stay near 1, and their product near -1 keeps
//! the scales of the positions together (Barabasz et al. 2020 measure such choices).
//!
//! Patches are transformed for a bounded number of tiles at a time, filters for a block of channels at a time on each
//! thread, so no weight is ever held in its four times larger transformed form.

// Iterators over arrays of vectors would put them into memory and call functions that the compiler does not always inline.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use rayon::prelude::*;

use super::Geometry;
use super::tiles::{EDGE, Segment, Tiling};
use crate::Weight;
use crate::gemm::{Ahead, Rows, Tile, micro, split};
use crate::scratch::{Scratch, SharedMut, aligned};
use crate::simd::{Kernel, MAX_NR, NV, Simd, dispatch};
use crate::stored::StoredRows;

/// Positions of a transformed tile per axis.
const SIDE: usize = 6;
/// Positions of a transformed tile.
const POSITIONS: usize = SIDE * SIDE;
/// Taps of a filter.
const TAPS: usize = 9;
/// Input channels whose transformed filters are held at a time.
const CHANNELS: usize = 128;
/// Input channels whose filters are brought into vectors at a time, in the first-level cache.
const FILTERS: usize = 8;
/// Transformed patches that are held at a time: 16 MB, the shared cache.
const PATCHES: usize = 4 << 20;
/// Tiles at a time: their sums stay near the second-level cache, and the filters' transformation is paid off.
const TILES: usize = 256;
/// Tiles of one segment.
const SEGMENT: usize = 32;
/// Tiles whose pixels are written together: their rows are a whole cache line, in planes that fall into the same few sets of a cache.
const SPAN: usize = 4;
/// Width of the rows that a segment's tiles see, in whole groups of eight tiles.
const ROW: usize = EDGE * SEGMENT + 16;
/// Keeps the positions of a block in different sets of the caches.
const SKEW: usize = 16;

// The points ±A and ±B.
const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Reciprocals of the products of differences between the points.
const N_0: f32 = 1.0 / (A2 * B2);
const N_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const N_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// Whether the convolution is one this algorithm computes with less work than the direct product.
pub(super) fn suits(g: &Geometry) -> bool {
    let three = g.kernel == [3, 3] && g.stride == 1 && g.dilation == 1;
    let tiles = g.out_size[0].div_ceil(EDGE) * g.out_size[1].div_ceil(EDGE);
    // Partial tiles cost as much as whole ones; few channels cost more to transform than to multiply.
    let saves = 16 * POSITIONS * tiles <= 10 * TAPS * g.out_size[0] * g.out_size[1];
    three && saves && g.inputs / g.groups >= 8 && g.outputs / g.groups >= 16
}

/// out = x * w + bias, as [`super::conv2d`].
pub(super) fn conv2d(g: &Geometry, x: &[f32], weight: &Weight, bias: Option<&[f32]>, out: &mut [f32]) {
    let tiling = Tiling::new(g);
    let (inputs, outputs) = (g.inputs / g.groups, g.outputs / g.groups);
    let fitting = (PATCHES / (POSITIONS * inputs)).clamp(16, TILES);
    let blocks = tiling.count().div_ceil(fitting);
    let threads = rayon::current_num_threads();
    let shared = SharedMut::new(out);
    for group in 0..g.groups {
        for tiles in split(tiling.count(), blocks, 16) {
            let layout = Layout { inputs, tiles: aligned(tiles.len()) };
            let mut patches = Scratch::take(layout.len());
            let patches_shared = SharedMut::new(&mut patches);
            let chunks: Vec<_> = split(inputs, 4 * threads, 1).collect();
            chunks.into_par_iter().for_each(|channels| {
                dispatch(Patches {
                    g,
                    x,
                    group,
                    tiling: &tiling,
                    tiles: &tiles,
                    layout,
                    channels,
                    out: patches_shared,
                });
            });
            let filters = Filters {
                g,
                stored: StoredRows::new(weight, inputs * TAPS, group * outputs),
                bias: bias.map(|b| &b[group * outputs..(group + 1) * outputs]),
                group,
                tiling: &tiling,
                patches: &patches,
                layout,
                first_tile: tiles.start,
                out: shared,
            };
            // Patches come from the shared cache, or from memory where other programs fill that, and each time they do they serve
            // MAX_NR outputs. Cutting the tiles too only pays where the channels do not occupy the threads.
            let wide = outputs.div_ceil(MAX_NR);
            let parts = (2 * threads).div_ceil(wide).min(tiles.len() / 32);
            let tasks: Vec<_> = split(tiles.len(), parts, 1)
                .flat_map(|t| split(outputs, wide, MAX_NR).map(move |o| (t.clone(), o)))
                .collect();
            tasks.into_par_iter().for_each(|(tiles, outputs)| {
                dispatch(Sums { filters: &filters, tiles, outputs });
            });
        }
    }
}

/// Where the transformed patches of a block of tiles lie: [channel block][position][channel][tile].
#[derive(Clone, Copy)]
struct Layout {
    inputs: usize,
    /// Elements between channels.
    tiles: usize,
}

impl Layout {
    fn len(self) -> usize {
        self.inputs.div_ceil(CHANNELS) * self.block()
    }

    /// Elements between channel blocks.
    fn block(self) -> usize {
        POSITIONS * self.position()
    }

    /// Elements between positions of one channel.
    fn position(self) -> usize {
        CHANNELS * self.tiles + SKEW
    }

    /// First tile of a channel at position 0.
    fn channel(self, c: usize) -> usize {
        c / CHANNELS * self.block() + c % CHANNELS * self.tiles
    }
}

/// B^T d: six inputs to six positions.
#[inline(always)]
fn input_transform<S: Simd>(s: S, d: [S::V; SIDE]) -> [S::V; SIDE] {
    let (sum, product) = (s.splat(-(A2 + B2)), s.splat(A2 * B2));
    let even_a = s.fma(d[2], s.splat(-B2), d[4]);
    let odd_a = s.mul(s.fma(d[1], s.splat(-B2), d[3]), s.splat(A));
    let even_b = s.fma(d[2], s.splat(-A2), d[4]);
    let odd_b = s.mul(s.fma(d[1], s.splat(-A2), d[3]), s.splat(B));
    [
        s.fma(d[0], product, s.fma(d[2], sum, d[4])),
        s.add(even_a, odd_a),
        s.sub(even_a, odd_a),
        s.add(even_b, odd_b),
        s.sub(even_b, odd_b),
        s.fma(d[1], product, s.fma(d[3], sum, d[5])),
    ]
}

/// G g: three taps to six positions.
#[inline(always)]
fn filter_transform<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; SIDE] {
    let even_a = s.fma(g[2], s.splat(A2 * N_A), s.mul(g[0], s.splat(N_A)));
    let odd_a = s.mul(g[1], s.splat(A * N_A));
    let even_b = s.fma(g[2], s.splat(B2 * N_B), s.mul(g[0], s.splat(N_B)));
    let odd_b = s.mul(g[1], s.splat(B * N_B));
    [
        s.mul(g[0], s.splat(N_0)),
        s.add(even_a, odd_a),
        s.sub(even_a, odd_a),
        s.add(even_b, odd_b),
        s.sub(even_b, odd_b),
        g[2],
    ]
}

/// A^T m: six positions to four outputs.
#[inline(always)]
fn output_transform<S: Simd>(s: S, m: [S::V; SIDE]) -> [S::V; EDGE] {
    let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(even_a, even_b)),
        s.fma(odd_a, s.splat(A), s.mul(odd_b, s.splat(B))),
        s.fma(even_a, s.splat(A2), s.mul(even_b, s.splat(B2))),
        s.fma(odd_a, s.splat(A2 * A), s.fma(odd_b, s.splat(B2 * B), m[5])),
    ]
}

/// Transforms the patches of some channels.
struct Patches<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    group: usize,
    tiling: &'a Tiling,
    tiles: &'a Range<usize>,
    layout: Layout,
    channels: Range<usize>,
    out: SharedMut,
}

impl Kernel for Patches<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut rows = [[0f32; ROW]; SIDE];
        let mut columns = [[[0f32; SEGMENT]; 8]; SIDE];
        let [h, w] = self.g.size;
        for c in self.channels.clone() {
            for segment in self.tiling.segments(self.tiles.clone(), SEGMENT) {
                let plane = segment.image * self.g.inputs + self.group * self.layout.inputs + c;
                self.load_rows(s, &self.x[plane * h * w..(plane + 1) * h * w], &segment, &mut rows);
                let width = EDGE * segment.len + 2;
                transform_rows(s, &mut rows, width);
                for row in 0..SIDE {
                    let (rows, columns) = (&rows[row], &mut columns[row]);
                    for i in (0..segment.len).step_by(8) {
                        // Eight tiles, EDGE apart and overlapping, become eight columns of which six are used.
                        let from = &rows[EDGE * i..EDGE * (i + 8) + 4];
                        let to = &mut columns.as_flattened_mut()[i..];
                        assert!(from.len() >= 7 * EDGE + 8 && to.len() >= 7 * SEGMENT + 8);
                        // SAFETY: the assertion covers eight rows of eight elements on both sides.
                        unsafe { s.transpose8(from.as_ptr(), EDGE, to.as_mut_ptr(), SEGMENT) };
                    }
                }
                self.transform_columns(s, &columns, c, &segment);
            }
        }
    }
}

impl Patches<'_> {
    /// The six rows that the segment's tiles see, zeros outside the image.
    #[inline(always)]
    fn load_rows<S: Simd>(&self, s: S, plane: &[f32], segment: &Segment, rows: &mut [[f32; ROW]; SIDE]) {
        let [h, w] = self.g.size;
        let [top, left] = self.g.before;
        let width = EDGE * segment.len + 2;
        let x = EDGE * segment.x;
        for (i, row) in rows.iter_mut().enumerate() {
            let row = &mut row[..width];
            match (EDGE * segment.y + i).checked_sub(top) {
                Some(y) if y < h => super::patches::gather(s, &plane[y * w..(y + 1) * w], x, left, 1, row),
                _ => row.fill(0.0),
            }
        }
    }

    /// Transforms along x and writes the 36 positions of the segment's tiles.
    #[inline(always)]
    fn transform_columns<S: Simd>(
        &self,
        s: S,
        columns: &[[[f32; SEGMENT]; 8]; SIDE],
        c: usize,
        segment: &Segment,
    ) {
        let at = self.layout.channel(c) + segment.tile - self.tiles.start;
        let last = self.out.at(at + (POSITIONS - 1) * self.layout.position() + segment.len);
        debug_assert!(!last.is_null());
        let out = self.out.at(at);
        for (row, columns) in columns.iter().enumerate() {
            for i in (0..segment.len).step_by(S::LANES) {
                let n = (segment.len - i).min(S::LANES);
                let mut d = [s.zero(); SIDE];
                for column in 0..SIDE {
                    // SAFETY: i + LANES <= SEGMENT, a multiple of LANES.
                    d[column] = unsafe { s.load(columns[column].as_ptr().add(i)) };
                }
                let d = input_transform(s, d);
                for column in 0..SIDE {
                    let position = (row * SIDE + column) * self.layout.position();
                    // SAFETY: the buffer reaches to the segment's end at the last position, as `at` checked; this task
                    // alone writes channel c.
                    unsafe { s.store_n(out.add(position + i), n, d[column]) };
                }
            }
        }
    }
}

/// Transforms along y, in place.
#[inline(always)]
fn transform_rows<S: Simd>(s: S, rows: &mut [[f32; ROW]; SIDE], width: usize) {
    for x in (0..width).step_by(S::LANES) {
        let mut d = [s.zero(); SIDE];
        for y in 0..SIDE {
            // SAFETY: width <= ROW, a multiple of LANES.
            d[y] = unsafe { s.load(rows[y][x..].as_ptr()) };
        }
        let d = input_transform(s, d);
        for y in 0..SIDE {
            // SAFETY: as above.
            unsafe { s.store(rows[y][x..].as_mut_ptr(), d[y]) };
        }
    }
}

/// What the tasks of one block of tiles share.
struct Filters<'a> {
    g: &'a Geometry,
    stored: StoredRows<'a>,
    /// One value per output of the group.
    bias: Option<&'a [f32]>,
    group: usize,
    tiling: &'a Tiling,
    patches: &'a [f32],
    layout: Layout,
    /// The first tile of the block.
    first_tile: usize,
    /// All of the result.
    out: SharedMut,
}

/// Computes at most MAX_NR outputs of some tiles of the block.
struct Sums<'a> {
    filters: &'a Filters<'a>,
    tiles: Range<usize>,
    outputs: Range<usize>,
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f = self.filters;
        let filters_position = CHANNELS * S::NR + SKEW;
        let sums_position = self.tiles.len() * S::NR + SKEW;
        let panels = || {
            let all = self.outputs.clone();
            all.clone().step_by(S::NR).map(move |o| o..(o + S::NR).min(all.end))
        };
        let (filters_len, sums_len) = (POSITIONS * filters_position, POSITIONS * sums_position);
        let taps_len = FILTERS * TAPS * S::NR;
        let mut scratch = Scratch::take(panels().len() * (filters_len + sums_len) + taps_len);
        let (taps, rest) = scratch.split_at_mut(taps_len);
        let (filters, sums) = rest.split_at_mut(panels().len() * filters_len);
        for (index, c0) in (0..f.layout.inputs).step_by(CHANNELS).enumerate() {
            let channels = c0..(c0 + CHANNELS).min(f.layout.inputs);
            for (outputs, filters) in panels().zip(filters.chunks_exact_mut(filters_len)) {
                f.transform(s, &outputs, &channels, taps, filters, filters_position);
            }
            for position in 0..POSITIONS {
                let patches = &f.patches[index * f.layout.block() + position * f.layout.position()..];
                let patches = &patches[self.tiles.start..];
                for panel in 0..panels().len() {
                    let filters = &filters[panel * filters_len + position * filters_position..];
                    let sums = &mut sums[panel * sums_len + position * sums_position..];
                    multiply(
                        s,
                        patches,
                        f.layout.tiles,
                        &filters[..channels.len() * S::NR],
                        self.tiles.len(),
                        // The first panel brings the patches near for the others.
                        (panel == 0).then(|| patches.as_ptr().wrapping_add(f.layout.position())),
                        index > 0,
                        &mut sums[..self.tiles.len() * S::NR],
                    );
                }
            }
        }
        let tiles = f.first_tile + self.tiles.start..f.first_tile + self.tiles.end;
        for (outputs, sums) in panels().zip(sums.chunks_exact(sums_len)) {
            for segment in f.tiling.segments(tiles.clone(), usize::MAX) {
                let sums = &sums[(segment.tile - tiles.start) * S::NR..];
                f.write_segment(s, sums, sums_position, &segment, &outputs);
            }
        }
    }
}

/// sums [tiles, NR] (+)= patches^T filters, with patches [channels, tiles] in rows `ld` apart and filters
/// [channels, NR]. With `next` it meanwhile asks for the patches that come next: those of the following tiles, and at the last tiles those from
/// `next` on, in rows `ld` apart too.
#[inline(always)]
fn multiply<S: Simd>(
    s: S,
    patches: &[f32],
    ld: usize,
    filters: &[f32],
    tiles: usize,
    next: Option<*const f32>,
    accumulate: bool,
    sums: &mut [f32],
) {
    let channels = filters.len() / S::NR;
    assert!(channels > 0 && patches.len() >= (channels - 1) * ld + tiles && sums.len() >= tiles * S::NR);
    for t in split(tiles, tiles.div_ceil(S::MR), 1) {
        let tile = Tile::new(sums[t.start * S::NR..].as_mut_ptr(), S::NR, S::NR);
        let tile = if accumulate { tile.accumulate() } else { tile };
        let left = Rows::transposed(patches[t.start..].as_ptr(), ld);
        let ahead = match next {
            Some(_) if t.end < tiles => {
                // The line of the last one: the others lie there too, or in the line before, which came last time.
                let last = (t.end + S::MR).min(tiles) - 1;
                Ahead::new(patches[last..].as_ptr().cast(), channels, 1, ld * size_of::<f32>())
            }
            Some(next) => Ahead::new(next.cast(), channels, 1, ld * size_of::<f32>()),
            None => Ahead::NONE,
        };
        // SAFETY: the assertion covers the steps and rows of the left operand and the tile of sums.
        unsafe { micro::<S, 1, _>(s, t.len(), channels, left, filters.as_ptr(), &tile, ahead) };
    }
}

impl Filters<'_> {
    /// Writes the transformed filters of `outputs` and `channels`: [position][channel][NR], positions `ld` apart.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        s: S,
        outputs: &Range<usize>,
        channels: &Range<usize>,
        taps: &mut [f32],
        out: &mut [f32],
        ld: usize,
    ) {
        assert!(out.len() >= (POSITIONS - 1) * ld + channels.len() * S::NR);
        if outputs.len() < S::NR {
            taps.fill(0.0);
        }
        for c0 in channels.clone().step_by(FILTERS) {
            let some = FILTERS.min(channels.end - c0);
            self.stored.pack_rows(s, outputs.start, outputs.len(), c0 * TAPS, some * TAPS, taps, S::NR);
            for (i, taps) in taps.chunks_exact(TAPS * S::NR).enumerate().take(some) {
                for v in 0..NV {
                    let lane = v * S::LANES;
                    let to = (c0 - channels.start + i) * S::NR + lane;
                    let mut rows = [[s.zero(); 3]; SIDE];
                    for x in 0..3 {
                        let mut g = [s.zero(); 3];
                        for y in 0..3 {
                            // SAFETY: `taps` holds TAPS vectors of NR lanes.
                            g[y] = unsafe { s.load(taps.as_ptr().add((3 * y + x) * S::NR + lane)) };
                        }
                        let column = filter_transform(s, g);
                        for y in 0..SIDE {
                            rows[y][x] = column[y];
                        }
                    }
                    for y in 0..SIDE {
                        let row = filter_transform(s, rows[y]);
                        for x in 0..SIDE {
                            // SAFETY: inside `out` by the assertion.
                            unsafe { s.store(out.as_mut_ptr().add((y * SIDE + x) * ld + to), row[x]) };
                        }
                    }
                }
            }
        }
    }

    /// Transforms the sums of a segment's tiles ([position][tile][NR], positions `ld` apart) back and writes them to the
    /// result.
    #[inline(always)]
    fn write_segment<S: Simd>(
        &self,
        s: S,
        sums: &[f32],
        ld: usize,
        segment: &Segment,
        outputs: &Range<usize>,
    ) {
        let mut bias = [0f32; MAX_NR];
        if let Some(all) = self.bias {
            bias[..outputs.len()].copy_from_slice(&all[outputs.clone()]);
        }
        let mut pixels = [[[0f32; MAX_NR]; SPAN * EDGE]; EDGE];
        for t in (0..segment.len).step_by(SPAN) {
            let span = (segment.len - t).min(SPAN);
            for i in 0..span {
                for v in 0..NV {
                    let lane = v * S::LANES;
                    let at = (t + i) * S::NR + lane;
                    assert!(sums.len() >= (POSITIONS - 1) * ld + at + S::LANES);
                    let mut rows = [[s.zero(); SIDE]; EDGE];
                    for x in 0..SIDE {
                        let mut m = [s.zero(); SIDE];
                        for y in 0..SIDE {
                            // SAFETY: inside `sums` by the assertion.
                            m[y] = unsafe { s.load(sums.as_ptr().add((y * SIDE + x) * ld + at)) };
                        }
                        let column = output_transform(s, m);
                        for y in 0..EDGE {
                            rows[y][x] = column[y];
                        }
                    }
                    // SAFETY: lane + LANES <= NR <= MAX_NR, here and below.
                    let bias = unsafe { s.load(bias.as_ptr().add(lane)) };
                    for y in 0..EDGE {
                        let row = output_transform(s, rows[y]);
                        for x in 0..EDGE {
                            let to = pixels[y][EDGE * i + x].as_mut_ptr();
                            // SAFETY: as above.
                            unsafe { s.store(to.add(lane), s.add(row[x], bias)) };
                        }
                    }
                }
            }
            self.write_pixels(s, &pixels, segment, segment.x + t, span, outputs);
        }
    }

    /// Writes the pixels of up to SPAN tiles from tile column `x` on, [y][x][output], into the planes of `outputs`.
    #[inline(always)]
    fn write_pixels<S: Simd>(
        &self,
        s: S,
        pixels: &[[[f32; MAX_NR]; SPAN * EDGE]; EDGE],
        segment: &Segment,
        x: usize,
        tiles: usize,
        outputs: &Range<usize>,
    ) {
        let [h, w] = self.g.out_size;
        let (y0, x0) = (EDGE * segment.y, EDGE * x);
        let width = (EDGE * tiles).min(w - x0);
        let plane = segment.image * self.g.outputs + self.group * (self.g.outputs / self.g.groups);
        for (y, row) in pixels.iter().enumerate().take(h - y0) {
            for lane in (0..outputs.len()).step_by(8) {
                let first = ((plane + outputs.start + lane) * h + y0 + y) * w + x0;
                let whole = if lane + 8 <= outputs.len() { width - width % 8 } else { 0 };
                for x in (0..whole).step_by(8) {
                    let from = row[x..].as_flattened()[lane..].as_ptr();
                    let to = self.out.at(first + x);
                    // SAFETY: eight rows of eight pixels exist in the planes, which this task alone writes; eight
                    // lanes of eight pixels in `row`.
                    unsafe { s.transpose8(from, MAX_NR, to, h * w) };
                }
                for i in 0..if whole < width { (outputs.len() - lane).min(8) } else { 0 } {
                    // SAFETY: these pixels of the plane are written by this task alone.
                    let to = unsafe { self.out.slice(first + i * h * w + whole, width - whole) };
                    for (to, from) in to.iter_mut().zip(&row[whole..]) {
                        *to = from[lane + i];
                    }
                }
            }
        }
    }
}
