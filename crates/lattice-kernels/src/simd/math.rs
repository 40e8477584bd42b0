//! Vectorised elementary functions.
//!
//! The polynomials are minimax fits (relative weight, iteratively reweighted least squares on Chebyshev nodes). Errors
//! stated are the largest found over dense sweeps of the range named, against f64; the tests repeat the sweep.

use super::{SHIFTER, Simd};

/// Coefficients of e^r on |r| <= ln 2 / 2; those of (e^r - 1 - r) / r^2 are fitted.
const EXP: [f32; 7] = [
    1.0,
    1.0,
    0.4999999403953552,
    0.1666652113199234,
    0.04166838899254799,
    0.008368716575205326,
    0.001381459878757596,
];

/// Coefficients of (tanh x - x) / x^3 in x^2 on |x| <= 0.625.
const TANH: [f32; 5] = [
    -0.3333328068256378,
    0.13331441581249237,
    -0.05373971536755562,
    0.0206390880048275,
    -0.0057049887254834175,
];

/// Phi(-z) e^{z^2/2} / t as a polynomial in t = 1 / (1 + 0.4 z), z >= 0.
const PHI: [f32; 10] = [
    0.15957629680633545,
    0.15961924195289612,
    0.13320976495742798,
    0.091006800532341,
    -0.025899726897478104,
    0.11776293814182281,
    -0.37199339270591736,
    0.3808008134365082,
    -0.17618168890476227,
    0.032098960131406784,
];

/// Horner's rule, lowest coefficient first.
#[inline(always)]
fn horner<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut acc = s.splat(coefficients[N - 1]);
    for &c in coefficients.iter().rev().skip(1) {
        acc = s.fma(acc, x, s.splat(c));
    }
    acc
}

/// x.
#[inline(always)]
pub(crate) fn identity<S: Simd>(_: S, x: S::V) -> S::V {
    x
}

/// max(x, 0); NaN stays.
#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.if_less(x, s.zero(), s.zero(), x)
}

/// ln of the smallest normal number.
const LOWEST: f32 = -87.336_54;
/// A little less than ln of the largest number's half: e^x and 1 / e^x are normal numbers.
const HIGHEST: f32 = 87.0;

/// e^x for [`LOWEST`] <= x <= [`HIGHEST`]. Relative error below 2e-7; NaN stays.
///
/// Cody-Waite reduction x = n ln 2 + r with ln 2 split in two, then a polynomial of degree 6 in r. The sum that rounds to n has it in
/// its lowest bits, from where it becomes an exponent.
#[inline(always)]
fn exp_within<S: Simd>(s: S, x: S::V) -> S::V {
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(SHIFTER));
    let n = s.sub(shifted, s.splat(SHIFTER));
    let r = s.fma(n, s.splat(-0.693_359_375), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    s.mul(horner(s, r, EXP), s.exp2_shifted(shifted))
}

/// e^x for x <= 0. Relative error below 2e-7 for results that are normal numbers, 0 for smaller ones; NaN stays.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    let y = exp_within(s, s.max(s.splat(LOWEST), x));
    s.if_less(x, s.splat(LOWEST), s.zero(), y)
}

/// x / (1 + e^u) for u <= [`HIGHEST`]; NaN stays.
#[inline(always)]
fn over_one_plus_exp<S: Simd>(s: S, x: S::V, u: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp_within(s, s.max(s.splat(LOWEST), u))))
}

/// 1 / (1 + e^-x). Relative error below 4e-7 for x >= -87, absolute error below 2e-38 for less.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let u = s.min(s.splat(HIGHEST), s.sub(s.zero(), x));
    over_one_plus_exp(s, s.splat(1.0), u)
}

/// x / (1 + e^-x) (Elfwing et al. 2017). Relative error below 4e-7 for x >= -87, absolute error below 2e-36 for less.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-HIGHEST), x);
    over_one_plus_exp(s, x, s.sub(s.zero(), x))
}

/// tanh x. Relative error below 4e-7: an odd polynomial near 0, 1 - 2 / (e^{2|x|} + 1) elsewhere.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let x2 = s.mul(x, x);
    let near = s.fma(s.mul(x, x2), horner(s, x2, TANH), x);
    let a = s.abs(x);
    let e = exp_within(s, s.min(s.splat(HIGHEST), s.add(a, a)));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    let far = s.if_less(x, s.zero(), s.sub(s.zero(), far), far);
    s.if_less(a, s.splat(0.625), near, far)
}

/// Phi(-z), the upper tail of the normal distribution, for z >= 0. Relative error below 1e-6 up to z = 5, absolute
/// error below 1e-7 everywhere.
#[inline(always)]
fn normal_tail<S: Simd>(s: S, z: S::V) -> S::V {
    let t = s.div(s.splat(1.0), s.fma(z, s.splat(0.4), s.splat(1.0)));
    let e = exp_nonpositive(s, s.mul(s.mul(z, z), s.splat(-0.5)));
    s.mul(s.mul(e, t), horner(s, t, PHI))
}

/// erf x = 1 - 2 Phi(-x sqrt 2). Absolute error below 3e-7.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let tail = normal_tail(s, s.mul(s.abs(x), s.splat(std::f32::consts::SQRT_2)));
    let y = s.fma(tail, s.splat(-2.0), s.splat(1.0));
    s.if_less(x, s.zero(), s.sub(s.zero(), y), y)
}

/// x Phi(x), the exact GELU (Hendrycks & Gimpel 2016). Error below 3e-7 |x|, and below 1e-6 relative where x > -5.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let tail = normal_tail(s, s.abs(x));
    let phi = s.if_less(x, s.zero(), tail, s.sub(s.splat(1.0), tail));
    s.mul(x, phi)
}

/// GELU with the tanh approximation, x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const A: f32 = -1.595_769_121_605_730_7; // -2 sqrt(2/pi)
    // From here on down the result is nearer to 0 than any number that matters: 2u = -87.
    let x = s.max(s.splat(-10.0), x);
    let u = s.mul(x, s.fma(s.mul(x, x), s.splat(A * 0.044_715), s.splat(A)));
    over_one_plus_exp(s, x, s.min(s.splat(HIGHEST), u))
}

/// x sigmoid(1.702 x).
#[inline(always)]
pub(crate) fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    // 1.702 * 51 < HIGHEST.
    let x = s.max(s.splat(-51.0), x);
    over_one_plus_exp(s, x, s.mul(x, s.splat(-1.702)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, Level};

    struct Sweep<'a> {
        function: usize,
        x: &'a [f32],
    }

    impl Kernel for Sweep<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut out = vec![0.0; self.x.len()];
            for (o, x) in out.chunks_mut(S::LANES).zip(self.x.chunks(S::LANES)) {
                // SAFETY: both chunks hold x.len() <= LANES elements.
                unsafe {
                    let v = s.load_n(x.as_ptr(), x.len());
                    let y = match self.function {
                        0 => exp_within(s, v),
                        1 => sigmoid(s, v),
                        2 => silu(s, v),
                        3 => tanh(s, v),
                        4 => erf(s, v),
                        5 => gelu(s, v),
                        6 => gelu_tanh(s, v),
                        8 => exp_nonpositive(s, v),
                        _ => quick_gelu(s, v),
                    };
                    s.store_n(o.as_mut_ptr(), x.len(), y);
                }
            }
            out
        }
    }

    /// erf by its Maclaurin series (|x| <= 3) or the continued fraction of erfc.
    fn erf64(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            x.signum() - erfc64(x.abs()) * x.signum()
        }
    }

    fn erfc64(x: f64) -> f64 {
        if x < 3.0 {
            return 1.0 - erf64(x);
        }
        let mut f = 0.0;
        for k in (1..200).rev() {
            f = f64::from(k) / 2.0 / (x + f);
        }
        (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + f)
    }

    fn gelu64(x: f64) -> f64 {
        let tail = 0.5 * erfc64(x.abs() / std::f64::consts::SQRT_2);
        x * if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn sweep(function: usize, lo: f32, hi: f32, tolerance: impl Fn(f64, f64) -> f64, f: impl Fn(f64) -> f64) {
        const N: usize = 200_003;
        let x: Vec<f32> = (0..N).map(|i| lo + (hi - lo) * i as f32 / (N - 1) as f32).collect();
        for level in Level::available() {
            let y = level.run(Sweep { function, x: &x });
            for (&x, &y) in x.iter().zip(&y) {
                let want = f(f64::from(x));
                let error = (f64::from(y) - want).abs();
                assert!(
                    error <= tolerance(f64::from(x), want),
                    "{level:?} function {function} at {x}: {y} instead of {want}"
                );
            }
        }
    }

    #[test]
    fn errors_are_as_stated() {
        sweep(0, -87.3, 87.0, |_, y| 2e-7 * y, f64::exp);
        sweep(8, -87.3, 0.0, |_, y| 2e-7 * y, f64::exp);
        sweep(1, -87.0, 90.0, |_, y| 4e-7 * y, |x| 1.0 / (1.0 + (-x).exp()));
        sweep(2, -87.0, 90.0, |_, y| 4e-7 * y.abs(), |x| x / (1.0 + (-x).exp()));
        sweep(3, -12.0, 12.0, |_, y| 4e-7 * y.abs(), f64::tanh);
        sweep(4, -5.0, 5.0, |_, _| 3e-7, erf64);
        sweep(5, -5.0, 8.0, |_, y| 1e-6 * y.abs(), gelu64);
        sweep(5, -14.0, -5.0, |x, _| 3e-7 * x.abs(), gelu64);
        let gelu_tanh64 = |x: f64| {
            x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
        };
        sweep(6, -12.0, 8.0, |x, y| 4e-7 * y.abs() + 3e-7 * x.abs(), gelu_tanh64);
        sweep(7, -60.0, 8.0, |x, y| 4e-7 * y.abs() + 3e-7 * x.abs(), |x| x / (1.0 + (-1.702 * x).exp()));
    }

    #[test]
    fn limits() {
        let inf = f32::INFINITY;
        let low = [-inf, f32::MIN, -1e30, -1000.0];
        let high = [1000.0, 1e30, f32::MAX, inf];
        for level in Level::available() {
            let run = |function, x: &[f32]| level.run(Sweep { function, x });
            assert_eq!(run(8, &low), [0.0; 4], "{level:?}");
            assert_eq!(run(8, &[0.0, -0.0]), [1.0; 2], "{level:?}");
            assert_eq!(run(1, &high), [1.0; 4], "{level:?}");
            assert!(run(1, &low).iter().all(|y| (0.0..2e-38).contains(y)), "{level:?}");
            assert_eq!(run(3, &low), [-1.0; 4], "{level:?}");
            assert_eq!(run(3, &high), [1.0; 4], "{level:?}");
            assert_eq!(run(5, &low[1..]), [0.0; 3], "{level:?}");
            for function in [2, 5, 6, 7] {
                assert_eq!(run(function, &high), high, "{level:?} {function}");
            }
            for function in [2, 6, 7] {
                assert!(run(function, &low).iter().all(|y| y.abs() < 2e-36), "{level:?} {function}");
            }
            // With a payload too: it must not turn into an exponent.
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7fc0_00ff)] {
                for function in 0..=8 {
                    assert!(run(function, &[nan])[0].is_nan(), "{level:?} {function}");
                }
            }
        }
    }
}
