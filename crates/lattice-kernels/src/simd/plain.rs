//! The fallback: arrays of four, which compilers turn into whatever vectors the target has.

use super::{Kernel, ONE_BITS, Simd};

/// No instruction set beyond the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

type V = [f32; 4];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Plain {
    type V = V;
    const LANES: usize = 4;
    const MR: usize = 4;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller's promise; an array of f32 has the alignment of f32.
        unsafe { p.cast::<V>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: as for `load`.
        unsafe { p.cast::<V>().write(v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> V {
        let mut v = [0.0; 4];
        for (i, x) in v.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, which the caller promises to be readable.
            *x = unsafe { *p.add(i) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: V) {
        for (i, x) in v.iter().enumerate().take(n) {
            // SAFETY: i < n, which the caller promises to be writable.
            unsafe { *p.add(i) = *x };
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // Not `mul_add`: without the instruction that is a slow library call per element.
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn exp2_shifted(self, a: V) -> V {
        a.map(|a| f32::from_bits((a.to_bits() << 23).wrapping_add(ONE_BITS as u32)))
    }
    #[inline(always)]
    fn if_less(self, a: V, b: V, yes: V, no: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn evens(self, a: V, b: V) -> V {
        [a[0], a[2], b[0], b[2]]
    }
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}

    #[inline(always)]
    fn prefetch_second(self, _p: *const f32) {}

    #[inline(always)]
    unsafe fn transpose8(self, src: *const f32, ld_src: usize, dst: *mut f32, ld_dst: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: i, j < 8, inside the blocks the caller promises.
                unsafe { *dst.add(j * ld_dst + i) = *src.add(i * ld_src + j) };
            }
        }
    }
}
