//! Uniform values and Box-Muller blocks in each floating-point type.
//!
//! A block is 16 uniforms; entries j and j + 8 make a pair. Half types round after every operation. Single precision
//! uses the polynomials of the Cephes library (S. Moshier) with fused multiply-add, as vector units do in the
//! reference; a system's own `ln`, `sin` and `cos` would differ in the last bit of a third of the values.

// Only code that is inlined into a function with vector features is compiled for them.
#![allow(clippy::inline_always)]

use half::{bf16, f16};

use super::mt19937::Mt19937;

/// Values per block.
pub(super) const BLOCK: usize = 16;

/// A type that noise can be drawn in.
pub trait NoiseFloat: Copy + Send + 'static {
    /// Uniform in [0, 1).
    fn uniform(engine: &mut Mt19937) -> Self;
    /// Fills a slice as repeated [`NoiseFloat::uniform`] would.
    fn fill_uniform(engine: &mut Mt19937, values: &mut [Self]) {
        values.fill_with(|| Self::uniform(engine));
    }
    /// Nearest value.
    fn from_f64(value: f64) -> Self;
    /// Replaces uniforms by normal values, block by block. The length is a multiple of 16; a rest stays as it is.
    fn box_muller(values: &mut [Self]);
}

/// Applies `pair` to (1 - first, second) of every pair.
#[inline(always)]
fn each_pair<T: Copy>(values: &mut [T], pair: impl Fn(T, T) -> (T, T)) {
    for block in values.chunks_exact_mut(BLOCK) {
        let (first, second) = block.split_at_mut(BLOCK / 2);
        for (a, b) in first.iter_mut().zip(second) {
            (*a, *b) = pair(*a, *b);
        }
    }
}

impl NoiseFloat for f64 {
    #[inline]
    fn uniform(engine: &mut Mt19937) -> Self {
        const BITS: u64 = 53;
        (engine.next_u64() & ((1 << BITS) - 1)) as f64 / (1u64 << BITS) as f64
    }

    fn from_f64(value: f64) -> Self {
        value
    }

    fn box_muller(values: &mut [Self]) {
        each_pair(values, |a, b| {
            let radius = (-2.0 * (1.0 - a).ln()).sqrt();
            let angle = std::f64::consts::TAU * b;
            (radius * angle.cos(), radius * angle.sin())
        });
    }
}

macro_rules! half_noise {
    ($type:ty, $bits:literal) => {
        impl NoiseFloat for $type {
            #[inline]
            fn uniform(engine: &mut Mt19937) -> Self {
                let word = engine.next_u32() & ((1 << $bits) - 1);
                Self::from_f32(word as f32 / (1u32 << $bits) as f32)
            }

            fn from_f64(value: f64) -> Self {
                Self::from_f32(value as f32)
            }

            fn box_muller(values: &mut [Self]) {
                let round = |v: f32| Self::from_f32(v).to_f32();
                each_pair(values, |a, b| {
                    let log = round((1.0 - a.to_f32()).ln());
                    let radius = round(round(-2.0 * log).sqrt());
                    let angle = round((std::f64::consts::TAU * f64::from(b)) as f32);
                    (Self::from_f32(radius * round(angle.cos())), Self::from_f32(radius * round(angle.sin())))
                });
            }
        }
    };
}

half_noise!(f16, 11);
half_noise!(bf16, 8);

impl NoiseFloat for f32 {
    #[inline]
    fn uniform(engine: &mut Mt19937) -> Self {
        unit(engine.next_u32())
    }

    fn fill_uniform(engine: &mut Mt19937, values: &mut [Self]) {
        engine.fill(values, unit);
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn box_muller(values: &mut [Self]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just found to be there.
            return unsafe { box_muller_avx2(values) };
        }
        box_muller_blocks(values);
    }
}

/// The low 24 bits of a word as a fraction.
#[inline(always)]
fn unit(word: u32) -> f32 {
    const BITS: u32 = 24;
    // Signed, as vector units convert.
    (word & ((1 << BITS) - 1)) as i32 as f32 / (1u32 << BITS) as f32
}

/// Pairs that are computed in one loop: the compiler makes vectors of a loop of unknown length, and unrolls one of eight.
const PAIRS: usize = 256;

/// Replaces uniforms block by block; the pairs of some blocks stand side by side meanwhile.
#[inline(always)]
fn box_muller_blocks(values: &mut [f32]) {
    const HALF: usize = BLOCK / 2;
    let (mut first, mut second) = ([0f32; PAIRS], [0f32; PAIRS]);
    for part in values.chunks_mut(2 * PAIRS) {
        let pairs = part.len() / BLOCK * HALF;
        let (first, second) = (&mut first[..pairs], &mut second[..pairs]);
        for (block, (a, b)) in
            part.chunks_exact(BLOCK).zip(first.chunks_exact_mut(HALF).zip(second.chunks_exact_mut(HALF)))
        {
            a.copy_from_slice(&block[..HALF]);
            b.copy_from_slice(&block[HALF..]);
        }
        for (a, b) in first.iter_mut().zip(second.iter_mut()) {
            (*a, *b) = normal_pair(*a, *b);
        }
        for (block, (a, b)) in
            part.chunks_exact_mut(BLOCK).zip(first.chunks_exact(HALF).zip(second.chunks_exact(HALF)))
        {
            block[..HALF].copy_from_slice(a);
            block[HALF..].copy_from_slice(b);
        }
    }
}

/// The same arithmetic compiled for vectors with fused multiply-add: `mul_add` rounds once either way.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn box_muller_avx2(values: &mut [f32]) {
    box_muller_blocks(values);
}

/// One pair: (r cos t, r sin t) with r = sqrt(-2 ln(1 - a)), t = 2 pi b.
#[inline(always)]
fn normal_pair(a: f32, b: f32) -> (f32, f32) {
    let radius = (-2.0 * ln(1.0 - a)).sqrt();
    let (sin, cos) = sin_cos(b * std::f32::consts::TAU);
    (radius * cos, radius * sin)
}

/// Natural logarithm of a positive normal number (Cephes `logf`).
#[inline(always)]
fn ln(u: f32) -> f32 {
    // u = m * 2^e, m in [0.5, 1).
    let bits = u.to_bits();
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let e = (bits >> 23) as i32 - 126;
    let small = m < std::f32::consts::FRAC_1_SQRT_2;
    let e = (e - i32::from(small)) as f32;
    let x = (m - 1.0) + if small { m } else { 0.0 };
    let z = x * x;
    let mut p = 7.0376836292e-2f32;
    for c in [
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ] {
        p = p.mul_add(x, c);
    }
    p *= x;
    p = p.mul_add(z, e * -2.12194440e-4);
    p = z.mul_add(-0.5, p);
    e.mul_add(0.693359375, x + p)
}

/// Sine and cosine of t >= 0 (Cephes `sinf`, `cosf` with a three-part reduction by pi/4).
#[inline(always)]
fn sin_cos(t: f32) -> (f32, f32) {
    const FOUR_OVER_PI: f32 = 1.27323954473516;
    let octant = ((t * FOUR_OVER_PI) as i32 + 1) & !1;
    let y = octant as f32;
    let mut x = y.mul_add(-0.78515625, t);
    x = y.mul_add(-2.4187564849853515625e-4, x);
    x = y.mul_add(-3.77489497744594108e-8, x);
    let z = x * x;

    let mut c = 2.443315711809948e-5f32.mul_add(z, -1.388731625493765e-3);
    c = c.mul_add(z, 4.166664568298827e-2);
    c *= z;
    c = c.mul_add(z, -(0.5 * z)) + 1.0;

    let mut s = (-1.9515295891e-4f32).mul_add(z, 8.3321608736e-3);
    s = s.mul_add(z, -1.6666654611e-1);
    s *= z;
    s = s.mul_add(x, x);

    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_close_to_the_functions() {
        for i in 1..=4096 {
            let u = i as f32 / 4096.0;
            assert!((ln(u) - u.ln()).abs() <= 4e-7 * u.ln().abs().max(1.0), "ln {u}");
            let t = u * std::f32::consts::TAU;
            let (sin, cos) = sin_cos(t);
            assert!((sin - t.sin()).abs() < 5e-7 && (cos - t.cos()).abs() < 5e-7, "angle {t}");
        }
    }

    #[test]
    fn vector_and_scalar_code_agree_bit_for_bit() {
        let mut engine = Mt19937::new(77);
        let mut vector: Vec<f32> = (0..4096).map(|_| f32::uniform(&mut engine)).collect();
        let mut scalar = vector.clone();
        f32::box_muller(&mut vector);
        each_pair(&mut scalar, normal_pair);
        assert!(vector.iter().zip(&scalar).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
