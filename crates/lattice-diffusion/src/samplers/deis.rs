//! Exponential integrator on a fitted variance-preserving process.

use candle_core::Tensor;

use super::math::{History, derivative, euler_step, lagrange};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

const MAX_ORDER: usize = 3;
/// Points of the sums that stand for the coefficients' integrals.
const POINTS: usize = 10_000;

/// DEIS, time Adams-Bashforth variant (Zhang and Chen, arXiv 2204.13902, section 3.4). One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deis;

/// The variance-preserving process between the levels 0.002 and 80: beta(t) = b0 + t (b1 - b0).
struct Process {
    b0: f64,
    b1: f64,
}

impl Process {
    fn new() -> Self {
        const SIGMA_MIN: f64 = 0.002;
        const SIGMA_MAX: f64 = 80.0;
        const EPSILON: f64 = 1e-3;
        let log = |sigma: f64| (sigma * sigma + 1.0).ln();
        let slope = 2.0 * (log(SIGMA_MIN) / EPSILON - log(SIGMA_MAX)) / (EPSILON - 1.0);
        let b0 = log(SIGMA_MAX) - slope / 2.0;
        Self { b0, b1: slope + b0 }
    }

    /// Time of a level.
    fn time(&self, sigma: f64) -> f64 {
        let slope = self.b1 - self.b0;
        ((self.b0 * self.b0 + 2.0 * slope * (sigma * sigma + 1.0).ln()).sqrt() - self.b0) / slope
    }

    /// Weight of the derivative at a time.
    fn weight(&self, time: f64) -> f64 {
        let slope = self.b1 - self.b0;
        let alpha_bar = (-0.5 * time * time * slope - time * self.b0).exp();
        0.5 * (time * slope + self.b0) / (alpha_bar * (1.0 - alpha_bar)).sqrt()
    }

    /// Coefficients of the derivatives at `nodes` (newest first) for the step from the first node to `to`.
    fn coefficients(&self, nodes: &[f64], to: f64) -> Vec<f64> {
        let from = nodes[0];
        let step = (to - from) / (POINTS - 1) as f64;
        let mut sums = vec![0.0; nodes.len()];
        for k in 0..POINTS {
            let time = from + step * k as f64;
            let weight = self.weight(time);
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += weight * lagrange(nodes, j, time);
            }
        }
        sums.iter().map(|sum| sum * (to - from) / POINTS as f64).collect()
    }
}

impl Sampler for Deis {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let process = Process::new();
        let mut history: History<(f64, Tensor)> = History::new(MAX_ORDER);
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            history.push((process.time(s), derivative(&x, &denoised, s)?));
            if s1 == 0.0 || history.len() == 1 {
                x = euler_step(&x, &denoised, s, s1)?;
                continue;
            }
            let nodes: Vec<f64> = history.iter().map(|(time, _)| *time).collect();
            let coefficients = process.coefficients(&nodes, process.time(s1));
            let mut terms = vec![(1.0, &x)];
            terms.extend(coefficients.iter().zip(history.iter()).map(|(c, (_, d))| (*c, d)));
            x = lincomb(&terms)?;
        }
        Ok(x)
    }
}
