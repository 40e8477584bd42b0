//! AArch64 NEON. The intrinsics are sound to call under the token's proof, as in the x86 module.

#[allow(clippy::wildcard_imports)] // a list of intrinsics says nothing
use std::arch::aarch64::*;

use super::{Kernel, ONE_BITS, Simd};

/// NEON: 4 lanes, 32 registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// The token, if the processor has NEON.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

#[target_feature(enable = "neon")]
fn run_neon<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token proves that the processor has these instructions.
            #[allow(unused_unsafe)]
            unsafe { $body }
        })*
    };
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const MR: usize = 12;

    #[inline]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves that the processor has these instructions.
        unsafe { run_neon(self, kernel) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise and the token.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the caller's promise and the token.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> float32x4_t {
        let mut lanes = [0.0; 4];
        // SAFETY: n <= 4 elements, which the caller promises to be readable.
        unsafe { std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n.min(4)) };
        // SAFETY: an array of four.
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: float32x4_t) {
        let mut lanes = [0.0; 4];
        // SAFETY: an array of four, of which n <= 4 go where the caller promises.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n.min(4));
        }
    }

    methods! {
        fn splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        fn abs(a: float32x4_t) -> float32x4_t = vabsq_f32(a);
        fn exp2_shifted(a: float32x4_t) -> float32x4_t = vreinterpretq_f32_s32(
            vaddq_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(a)), vdupq_n_s32(ONE_BITS)));
        fn if_less(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), yes, no);
        fn sum(a: float32x4_t) -> f32 = vaddvq_f32(a);
        fn evens(a: float32x4_t, b: float32x4_t) -> float32x4_t = vuzp1q_f32(a, b);
    }

    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}

    #[inline(always)]
    fn prefetch_second(self, _p: *const f32) {}

    #[inline(always)]
    unsafe fn transpose8(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        for (i, j) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
            // SAFETY: the four 4x4 quarters of the blocks the caller promises.
            unsafe {
                let (from, to) = (src.add(i * ld_src + j), dst.add(j * ld_dst + i));
                let t0 = vtrnq_f32(vld1q_f32(from), vld1q_f32(from.add(ld_src)));
                let t1 = vtrnq_f32(vld1q_f32(from.add(2 * ld_src)), vld1q_f32(from.add(3 * ld_src)));
                vst1q_f32(to, vcombine_f32(vget_low_f32(t0.0), vget_low_f32(t1.0)));
                vst1q_f32(to.add(ld_dst), vcombine_f32(vget_low_f32(t0.1), vget_low_f32(t1.1)));
                vst1q_f32(to.add(2 * ld_dst), vcombine_f32(vget_high_f32(t0.0), vget_high_f32(t1.0)));
                vst1q_f32(to.add(3 * ld_dst), vcombine_f32(vget_high_f32(t0.1), vget_high_f32(t1.1)));
            }
        }
    }
}
