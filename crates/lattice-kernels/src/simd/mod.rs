//! The one place that knows instruction sets.
//!
//! [`Simd`] is a token whose existence proves that the processor has the instructions its methods use; it is only
//! handed out by [`dispatch`], which looks at the processor once and runs a [`Kernel`] with the widest set it has.
//! Kernels are generic over the token and marked `#[inline(always)]`, so that each of them is compiled once per
//! instruction set inside a function that enables it.

pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use plain::Plain;

use crate::widen::f16_to_f32;

/// Vector columns of a micro-tile: a tile of the matrix product is up to [`Simd::MR`] rows by `NV * LANES` columns.
pub(crate) const NV: usize = 2;

/// The largest [`Simd::MR`] of all instruction sets.
pub(crate) const MAX_MR: usize = 14;

/// Elements of the widest vector of all instruction sets.
pub(crate) const MAX_LANES: usize = 16;

/// The widest micro-tile of all instruction sets, in columns.
pub(crate) const MAX_NR: usize = 32;

/// Added to a number of at most 2^22, it leaves the nearest integer (ties to even) in the lowest bits of the sum.
pub(crate) const SHIFTER: f32 = 12_582_912.0; // 1.5 * 2^23

/// Bits of 1.0: an exponent of 0.
const ONE_BITS: i32 = 127 << 23;

/// Vector operations on f32, and a proof that the processor has them.
///
/// # Safety of the methods
/// Arithmetic is safe: the token proves the instructions exist. Loads and stores take raw pointers to memory that
/// the caller knows to be valid for the lanes named.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of `LANES` f32.
    type V: Copy;
    /// Elements per vector.
    const LANES: usize;
    /// Rows of the largest micro-tile whose accumulators still fit the registers.
    const MR: usize;
    /// Columns of a micro-tile.
    const NR: usize = NV * Self::LANES;

    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes equal to `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Loads `LANES` elements.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` elements; no alignment is needed.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Stores `LANES` elements.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` elements; no alignment is needed.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads `n < LANES` elements, zeros in the other lanes.
    ///
    /// # Safety
    /// `p` is valid for reading `n` elements.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::V;
    /// Stores the first `n < LANES` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` elements.
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: Self::V);

    /// Loads `LANES` IEEE halves.
    ///
    /// # Safety
    /// `p` is valid for reading 2 * `LANES` bytes; no alignment is needed.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> Self::V {
        let mut lanes = [0f32; MAX_LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's promise.
            *lane = f16_to_f32(u16::from_le_bytes(unsafe { p.add(2 * i).cast::<[u8; 2]>().read() }));
        }
        // SAFETY: LANES <= MAX_LANES.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Stores `LANES` elements as IEEE halves, rounded to nearest, ties to even.
    ///
    /// # Safety
    /// `p` is valid for writing 2 * `LANES` bytes; no alignment is needed.
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u8, v: Self::V) {
        let mut lanes = [0f32; MAX_LANES];
        // SAFETY: LANES <= MAX_LANES; the caller's promise.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            for (i, &lane) in lanes.iter().enumerate().take(Self::LANES) {
                p.add(2 * i).cast::<[u8; 2]>().write(half::f16::from_f32(lane).to_le_bytes());
            }
        }
    }

    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// |a|.
    fn abs(self, a: Self::V) -> Self::V;
    /// 2^n for `shifted` = n + [`SHIFTER`] with an integer n in -126..=127; NaN may become any number.
    fn exp2_shifted(self, shifted: Self::V) -> Self::V;
    /// Where `a < b`: `yes`, elsewhere (also at NaN) `no`.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, a: Self::V) -> f32;
    /// Lanes 0, 2, 4.. of `a`, then those of `b`.
    fn evens(self, a: Self::V, b: Self::V) -> Self::V;

    /// Asks for the cache line of `p` ahead of its use. `p` may lie anywhere.
    fn prefetch(self, p: *const f32);

    /// Asks for the cache line of `p` to come as near as the second-level cache. `p` may lie anywhere.
    fn prefetch_second(self, p: *const f32);

    /// Transposes an 8x8 block: `dst[j * ld_dst + i] = src[i * ld_src + j]`.
    ///
    /// # Safety
    /// `src` is valid for reading 8 rows of 8 elements `ld_src` apart, `dst` for writing 8 rows `ld_dst` apart; they do
    /// not overlap.
    unsafe fn transpose8(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize);

    /// Loads `n <= LANES` elements.
    ///
    /// # Safety
    /// `p` is valid for reading `n` elements.
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { if n >= Self::LANES { self.load(p) } else { self.load_partial(p, n) } }
    }

    /// Stores the first `n <= LANES` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` elements.
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, n: usize, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { if n >= Self::LANES { self.store(p, v) } else { self.store_partial(p, n, v) } }
    }

    /// Zero in all lanes.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
}

/// A computation that is compiled once per instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The computation. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Instruction sets, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// Whatever the target guarantees.
    Plain = 1,
    /// AArch64 NEON.
    #[cfg(target_arch = "aarch64")]
    Neon = 2,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2 = 3,
    /// AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    Avx512 = 4,
}

impl Level {
    /// All that this processor has, narrowest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Plain];
        #[cfg(target_arch = "aarch64")]
        if neon::Neon::detect().is_some() {
            levels.push(Self::Neon);
        }
        #[cfg(target_arch = "x86_64")]
        {
            if x86::Avx2::detect().is_some() {
                levels.push(Self::Avx2);
            }
            if x86::Avx512::detect().is_some() {
                levels.push(Self::Avx512);
            }
        }
        levels
    }

    /// The widest that this processor has. `LATTICE_SIMD` (`plain`, `neon`, `avx2`, `avx512`) asks for a narrower one.
    pub(crate) fn best() -> Self {
        static BEST: AtomicU8 = AtomicU8::new(0);
        let levels = Self::available;
        let code = BEST.load(Ordering::Relaxed);
        if code == 0 {
            let wanted = std::env::var("LATTICE_SIMD").unwrap_or_default();
            let level = levels()
                .into_iter()
                .rfind(|l| wanted.is_empty() || format!("{l:?}").eq_ignore_ascii_case(&wanted))
                .unwrap_or(Self::Plain);
            BEST.store(level as u8, Ordering::Relaxed);
            return level;
        }
        match code {
            #[cfg(target_arch = "aarch64")]
            2 => Self::Neon,
            #[cfg(target_arch = "x86_64")]
            3 => Self::Avx2,
            #[cfg(target_arch = "x86_64")]
            4 => Self::Avx512,
            _ => Self::Plain,
        }
    }

    /// Runs `kernel` with this instruction set, or the plain one if the processor lacks it.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Plain => Plain.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => match neon::Neon::detect() {
                Some(simd) => simd.run(kernel),
                None => Plain.run(kernel),
            },
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => match x86::Avx2::detect() {
                Some(simd) => simd.run(kernel),
                None => Plain.run(kernel),
            },
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => match x86::Avx512::detect() {
                Some(simd) => simd.run(kernel),
                None => Plain.run(kernel),
            },
        }
    }
}

/// Name of the instruction set the kernels use on this processor.
pub fn instruction_set() -> &'static str {
    match Level::best() {
        Level::Plain => "plain",
        #[cfg(target_arch = "aarch64")]
        Level::Neon => "neon",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "avx2+fma",
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "avx512f",
    }
}

/// Runs `kernel` with the widest instruction set of this processor.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    Level::best().run(kernel)
}
