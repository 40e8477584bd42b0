//! The micro-kernel: an MR x NR tile of the product, kept in registers while k runs.

use std::mem::MaybeUninit;

use crate::simd::{Kernel, MAX_MR, MAX_NR, NV, Simd};

/// The left operand: element p of row i lies at `at[i * row + p * step]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) at: *const f32,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

impl Rows {
    /// Rows as they lie, `row` apart.
    pub(crate) fn plain(at: *const f32, row: usize) -> Self {
        Self { at, row, step: 1 }
    }

    /// Rows that are columns in memory: steps of k are `step` apart.
    pub(crate) fn transposed(at: *const f32, step: usize) -> Self {
        Self { at, row: 1, step }
    }
}

/// The distance of rows is known at run time only.
pub(crate) const ANY: usize = 0;

/// Elements of a cache line.
const LINE: usize = 16;
const LINE_BYTES: usize = LINE * size_of::<f32>();
/// Memory that exists, for asking for nothing.
static NOTHING: [u8; LINE_BYTES] = [0; LINE_BYTES];
/// Steps of k between asking for a line of the right operand and using it.
const DISTANCE: usize = 16;

/// What is asked for while the micro-kernel computes.
pub(crate) trait Fetch: Copy {
    /// Called at every step of k with the step's part of the right operand.
    fn step<S: Simd>(&mut self, s: S, b: *const f32);
}

/// Nothing: the operands were just made and lie in the first caches.
#[derive(Clone, Copy)]
pub(crate) struct Near;

impl Fetch for Near {
    #[inline(always)]
    fn step<S: Simd>(&mut self, _: S, _: *const f32) {}
}

/// The right operand, which streams from farther caches than the left one, and the panels that follow it; and memory that will be packed
/// next, line by line, since reading it takes longer than packing it. Nothing is read through the pointer.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    at: *const u8,
    /// Bytes of a row before `at`.
    done: usize,
    /// Bytes of a row.
    row: usize,
    /// Bytes from the end of one row to the start of the next.
    skip: usize,
    /// Bytes that are left after the line at `at`.
    left: usize,
}

impl Ahead {
    /// Nothing.
    pub(crate) const NONE: Self = Self { at: NOTHING.as_ptr(), done: 0, row: 0, skip: 0, left: 0 };

    /// `rows` rows of `row` bytes, `stride` bytes apart.
    pub(crate) fn new(at: *const u8, rows: usize, row: usize, stride: usize) -> Self {
        let row = row.next_multiple_of(LINE_BYTES);
        if rows * row == 0 {
            return Self::NONE;
        }
        Self { at, done: 0, row, skip: stride.wrapping_sub(row), left: rows * row - LINE_BYTES }
    }

    /// Where the next line lies: at the end always the last one, since asking for memory that does not exist makes the processor look for
    /// it every time.
    #[inline(always)]
    fn next(&mut self) -> *const f32 {
        let at = self.at;
        if self.left > 0 {
            self.left -= LINE_BYTES;
            self.done += LINE_BYTES;
            self.at = at.wrapping_add(LINE_BYTES);
            if self.done == self.row {
                self.done = 0;
                self.at = self.at.wrapping_add(self.skip);
            }
        }
        at.cast()
    }
}

impl Fetch for Ahead {
    #[inline(always)]
    fn step<S: Simd>(&mut self, s: S, b: *const f32) {
        for line in (0..S::NR).step_by(LINE) {
            s.prefetch(b.wrapping_add(DISTANCE * S::NR + line));
        }
        s.prefetch_second(self.next());
    }
}

/// Where a micro-tile goes and what it starts from. Pointers may be null where the part is absent.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// First element of the tile in the result.
    pub(crate) out: *mut f32,
    /// Elements between rows of the result.
    pub(crate) ld_out: usize,
    /// Columns that exist, at most NR.
    pub(crate) cols: usize,
    /// Added to the product: same shape as the tile (the result itself to accumulate).
    pub(crate) add: *const f32,
    /// Elements between rows of `add`.
    pub(crate) ld_add: usize,
    /// Added to each row: one value per row.
    pub(crate) row_bias: *const f32,
    /// Added to each column: one value per column that exists.
    pub(crate) col_bias: *const f32,
}

impl Tile {
    /// A tile that is only written.
    pub(crate) fn new(out: *mut f32, ld_out: usize, cols: usize) -> Self {
        Self {
            out,
            ld_out,
            cols,
            add: std::ptr::null(),
            ld_add: 0,
            row_bias: std::ptr::null(),
            col_bias: std::ptr::null(),
        }
    }

    /// Adds the product to what the result holds.
    pub(crate) fn accumulate(self) -> Self {
        Self { add: self.out, ld_add: self.ld_out, ..self }
    }
}

/// out = A B (+ add + row_bias + col_bias) for one tile of `rows` rows.
///
/// ROW is `a.row` where the compiler can know it, or [`ANY`]; `b` is a packed panel [k][NR].
///
/// # Safety
/// `a` is valid for `rows` rows of k steps and `a.row` is ROW unless that is [`ANY`], `b` for k * NR; `rows <= S::MR`; the tile's pointers are null (where allowed) or valid for
/// `rows` rows of `cols` elements.
#[inline(always)]
pub(crate) unsafe fn micro<S: Simd, const ROW: usize, F: Fetch>(
    s: S,
    rows: usize,
    k: usize,
    a: Rows,
    b: *const f32,
    tile: &Tile,
    fetch: F,
) {
    // One compiled function per row count, so that the accumulators are registers. Row counts above the instruction
    // set's MR never occur; the guards let the compiler drop them.
    macro_rules! rows {
        ($($n:literal)*) => {
            match rows {
                $($n if $n <= S::MR => s.run(Call::<$n, ROW, F> { k, a, b, tile, fetch }),)*
                _ => debug_assert_eq!(rows, 0),
            }
        };
    }
    const { assert!(S::MR <= MAX_MR) };
    rows!(14 12 13 11 10 9 8 7 6 5 4 3 2 1);
}

struct Call<'a, const ROWS: usize, const ROW: usize, F> {
    k: usize,
    a: Rows,
    b: *const f32,
    tile: &'a Tile,
    fetch: F,
}

impl<const ROWS: usize, const ROW: usize, F: Fetch> Kernel for Call<'_, ROWS, ROW, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: made only by `micro`, whose caller promises what `fixed` needs.
        unsafe { fixed::<S, ROWS, ROW, F>(s, self.k, self.a, self.b, self.tile, self.fetch) }
    }
}

#[inline(always)]
unsafe fn fixed<S: Simd, const ROWS: usize, const ROW: usize, F: Fetch>(
    s: S,
    k: usize,
    a: Rows,
    mut b: *const f32,
    t: &Tile,
    mut fetch: F,
) {
    let mut left = [s.zero(); ROWS];
    let mut right = [s.zero(); ROWS];
    let row = if ROW == ANY { a.row } else { ROW };
    let mut at = a.at;
    // The lines of the result arrive while k runs: rows far apart are too much for the processor to foresee.
    for i in 0..ROWS {
        for v in 0..NV {
            s.prefetch(t.out.wrapping_add(i * t.ld_out + v * S::LANES));
        }
    }
    // SAFETY: panels hold k steps by the caller's promise.
    unsafe {
        for _ in 0..k {
            let b0 = s.load(b);
            let b1 = s.load(b.add(S::LANES));
            fetch.step(s, b);
            for i in 0..ROWS {
                let x = s.splat(*at.add(i * row));
                left[i] = s.fma(x, b0, left[i]);
                right[i] = s.fma(x, b1, right[i]);
            }
            at = at.add(a.step);
            b = b.add(S::NR);
        }
    }
    // The sums must only be indexed in loops short enough to be unrolled, or they would live in memory while k runs.
    let whole = t.cols == S::NR && t.row_bias.is_null() && t.col_bias.is_null();
    // SAFETY: the tile's pointers cover its rows and existing columns by the caller's promise.
    unsafe {
        if whole && !t.add.is_null() {
            for i in 0..ROWS {
                let (out, add) = (t.out.add(i * t.ld_out), t.add.add(i * t.ld_add));
                s.store(out, s.add(left[i], s.load(add)));
                s.store(out.add(S::LANES), s.add(right[i], s.load(add.add(S::LANES))));
            }
        } else if whole {
            for i in 0..ROWS {
                s.store(t.out.add(i * t.ld_out), left[i]);
                s.store(t.out.add(i * t.ld_out + S::LANES), right[i]);
            }
        } else {
            let mut sums = [const { MaybeUninit::<f32>::uninit() }; MAX_MR * MAX_NR];
            let to = sums.as_mut_ptr().cast::<f32>();
            for i in 0..ROWS {
                s.store(to.add(i * S::NR), left[i]);
                s.store(to.add(i * S::NR + S::LANES), right[i]);
            }
            write_out(s, ROWS, to, t);
        }
    }
}

/// Writes the sums [rows, NR] of a tile with all that is added to them.
///
/// # Safety
/// `sums` holds rows * NR elements; the tile's pointers are null (where allowed) or valid for its rows and columns.
#[inline(always)]
unsafe fn write_out<S: Simd>(s: S, rows: usize, sums: *const f32, t: &Tile) {
    for v in 0..NV {
        let col = v * S::LANES;
        let width = t.cols.saturating_sub(col).min(S::LANES);
        if width == 0 {
            break;
        }
        // SAFETY: the caller's promise.
        unsafe {
            let bias = if t.col_bias.is_null() { s.zero() } else { s.load_n(t.col_bias.add(col), width) };
            for i in 0..rows {
                let mut y = s.add(s.load(sums.add(i * S::NR + col)), bias);
                if !t.row_bias.is_null() {
                    y = s.add(y, s.splat(*t.row_bias.add(i)));
                }
                if !t.add.is_null() {
                    y = s.add(y, s.load_n(t.add.add(i * t.ld_add + col), width));
                }
                s.store_n(t.out.add(i * t.ld_out + col), width, y);
            }
        }
    }
}
