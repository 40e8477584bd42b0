//! Improved pseudo-linear multistep methods (Zhang and Chen, arXiv 2204.13902), up to fourth order.

use candle_core::Tensor;

use super::math::{History, derivative};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

const MAX_ORDER: usize = 4;

/// Adams-Bashforth with the coefficients of equal steps. One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ipndm;

/// Adams-Bashforth with the coefficients of the actual steps. One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpndmV;

impl Sampler for Ipndm {
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor) -> Result<Tensor> {
        multistep(run, x, |_, _, order| match order {
            1 => vec![1.0],
            2 => vec![3.0 / 2.0, -1.0 / 2.0],
            3 => vec![23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => vec![55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        })
    }
}

impl Sampler for IpndmV {
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor) -> Result<Tensor> {
        multistep(run, x, variable_step_weights)
    }
}

/// x += (s1 - s) sum_j c_j d_{i-j}; `weights(sigmas, i, order)` gives c.
fn multistep(
    run: &mut SamplerRun<'_>,
    mut x: Tensor,
    weights: impl Fn(&[f64], usize, usize) -> Vec<f64>,
) -> Result<Tensor> {
    let sigmas = run.sigmas().to_vec();
    let mut history = History::new(MAX_ORDER);
    for (i, (s, s1)) in run.steps().into_iter().enumerate() {
        let denoised = run.denoise(&x, s)?;
        run.report(i, s, &x, &denoised)?;
        history.push(derivative(&x, &denoised, s)?);
        if s1 == 0.0 {
            x = denoised;
            continue;
        }
        let weights = weights(&sigmas, i, history.len());
        let mut terms = vec![(1.0, &x)];
        terms.extend(weights.iter().zip(history.iter()).map(|(c, d)| ((s1 - s) * c, d)));
        x = lincomb(&terms)?;
    }
    Ok(x)
}

/// Coefficients on the steps before and including step i.
fn variable_step_weights(sigmas: &[f64], i: usize, order: usize) -> Vec<f64> {
    let h = |back: usize| sigmas[i + 1 - back] - sigmas[i - back];
    let mut c = [1.0, 0.0, 0.0, 0.0];
    if order >= 2 {
        let (h0, h1) = (h(0), h(1));
        c[0] = 1.0 + h0 / (2.0 * h1);
        c[1] = -h0 / (2.0 * h1);
    }
    if order >= 3 {
        let (h0, h1, h2) = (h(0), h(1), h(2));
        let scale = h0 * (h0 + h1) / (h1 * (h1 + h2));
        let q = (1.0 - h0 / (3.0 * (h0 + h1)) * scale) / 2.0;
        c[0] += q;
        c[1] -= (1.0 + h1 / h2) * q;
        c[2] = q * h1 / h2;
    }
    if order >= 4 {
        let (h0, h1, h2, h3) = (h(0), h(1), h(2), h(3));
        let w = h1 * (h1 + h2) / (h2 * (h2 + h3));
        let first = (1.0 - h0 / (3.0 * (h0 + h1))) / 2.0;
        let second = (1.0 - h0 / (2.0 * (h0 + h1))) * h0 / (6.0 * (h0 + h1 + h2));
        let scale = h0 * (h0 + h1) * (h0 + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3));
        let q = (first + second) * scale;
        c[0] += q;
        c[1] -= (1.0 + h1 / h2 + w) * q;
        c[2] += (h1 / h2 + w * (1.0 + h2 / h3)) * q;
        c[3] = -q * w * h1 / h2;
    }
    c[..order.clamp(1, MAX_ORDER)].to_vec()
}
