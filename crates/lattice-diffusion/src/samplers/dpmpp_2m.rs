//! DPM-Solver++(2M): second-order multistep on the denoised prediction (Lu et al., arXiv 2211.01095, algorithm 2).

use candle_core::Tensor;

use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// DPM-Solver++(2M), in -ln(sigma) for flow models too. One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dpmpp2m;

impl Sampler for Dpmpp2m {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let mut old: Option<(Tensor, f64)> = None;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            let h = s.ln() - s1.ln();
            if s1 == 0.0 {
                x = denoised.clone();
            } else {
                let gain = -(-h).exp_m1();
                x = match &old {
                    None => lincomb(&[(s1 / s, &x), (gain, &denoised)])?,
                    Some((old_denoised, h_last)) => {
                        let half = 0.5 * h / h_last;
                        lincomb(&[
                            (s1 / s, &x),
                            (gain * (1.0 + half), &denoised),
                            (-gain * half, old_denoised),
                        ])?
                    }
                };
            }
            old = Some((denoised, h));
        }
        Ok(x)
    }
}

/// DPM-Solver++(2M) on the manifold of CFG++ (Chung et al., arXiv 2406.08070): noise is put back along the
/// unconditional prediction. One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dpmpp2mCfgPp;

impl Sampler for Dpmpp2mCfgPp {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let mut old: Option<(Tensor, f64)> = None;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, uncond) = run.denoise_both(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            let h = s.ln() - s1.ln();
            if s1 == 0.0 {
                x = denoised;
            } else {
                let keep = (-h).exp();
                x = match &old {
                    None => lincomb(&[(1.0, &denoised), (-keep, &uncond), (keep, &x)])?,
                    Some((old_uncond, h_last)) => {
                        let half = (-h).exp_m1() * 0.5 * h / h_last;
                        lincomb(&[(1.0 - half, &denoised), (-keep, &uncond), (half, old_uncond), (keep, &x)])?
                    }
                };
            }
            old = Some((uncond, h));
        }
        Ok(x)
    }
}
