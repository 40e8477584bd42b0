//! Elementwise activations, as parts of other kernels.

use crate::simd::{Simd, math};

/// An elementwise function that a kernel can apply to its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// x sigmoid(x) (Elfwing et al. 2017).
    Silu,
    /// x Phi(x), exact GELU (Hendrycks & Gimpel 2016).
    Gelu,
    /// GELU with the tanh approximation of the same paper.
    GeluTanh,
    /// x sigmoid(1.702 x), CLIP's approximation of GELU.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// The error function.
    Erf,
}

/// Runs `$body` with `$f` bound to the vector function of an [`Activation`], so that the choice is made outside loops.
macro_rules! with_function {
    ($activation:expr, |$f:ident| $body:expr) => {
        match $activation {
            Activation::None => {
                let $f = math::identity::<S>;
                $body
            }
            Activation::Silu => {
                let $f = math::silu::<S>;
                $body
            }
            Activation::Gelu => {
                let $f = math::gelu::<S>;
                $body
            }
            Activation::GeluTanh => {
                let $f = math::gelu_tanh::<S>;
                $body
            }
            Activation::QuickGelu => {
                let $f = math::quick_gelu::<S>;
                $body
            }
            Activation::Relu => {
                let $f = math::relu::<S>;
                $body
            }
            Activation::Tanh => {
                let $f = math::tanh::<S>;
                $body
            }
            Activation::Sigmoid => {
                let $f = math::sigmoid::<S>;
                $body
            }
            Activation::Erf => {
                let $f = math::erf::<S>;
                $body
            }
        }
    };
}

impl Activation {
    /// x = f(x).
    #[inline(always)]
    pub(crate) fn apply_in_place<S: Simd>(self, s: S, x: &mut [f32]) {
        let (p, len) = (x.as_mut_ptr(), x.len());
        with_function!(self, |f| for i in (0..len).step_by(S::LANES) {
            // SAFETY: elements i..i + min(LANES, len - i) of the slice.
            unsafe {
                s.store_n(
                    p.add(i),
                    (len - i).min(S::LANES),
                    f(s, s.load_n(p.add(i), (len - i).min(S::LANES))),
                );
            };
        });
    }

    /// out = f(x), slices of one length.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, s: S, x: &[f32], out: &mut [f32]) {
        let len = x.len().min(out.len());
        let (p, q) = (x.as_ptr(), out.as_mut_ptr());
        with_function!(self, |f| for i in (0..len).step_by(S::LANES) {
            let n = (len - i).min(S::LANES);
            // SAFETY: elements i..i + n of both slices.
            unsafe { s.store_n(q.add(i), n, f(s, s.load_n(p.add(i), n))) };
        });
    }

    /// out = value * f(gate), slices of one length.
    #[inline(always)]
    pub(crate) fn gate<S: Simd>(self, s: S, value: &[f32], gate: &[f32], out: &mut [f32]) {
        let len = value.len().min(gate.len()).min(out.len());
        let (v, g, q) = (value.as_ptr(), gate.as_ptr(), out.as_mut_ptr());
        with_function!(self, |f| for i in (0..len).step_by(S::LANES) {
            let n = (len - i).min(S::LANES);
            // SAFETY: elements i..i + n of the three slices.
            unsafe { s.store_n(q.add(i), n, s.mul(s.load_n(v.add(i), n), f(s, s.load_n(g.add(i), n)))) };
        });
    }
}
