//! Linear multistep method.

use candle_core::Tensor;

use super::math::{History, derivative, integrate, lagrange};
use super::{Result, SampleError, Sampler, SamplerRun};
use crate::lincomb;

/// Adams-Bashforth on the actual levels: the derivative's interpolation polynomial is integrated exactly. One model
/// call per step.
#[derive(Clone, Copy, Debug)]
pub struct Lms {
    /// Derivatives used, at least 1.
    pub order: usize,
}

impl Default for Lms {
    fn default() -> Self {
        Self { order: 4 }
    }
}

impl Sampler for Lms {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        if self.order == 0 {
            return Err(SampleError::Option { sampler: "lms", name: "order", value: 0.0 });
        }
        let mut history: History<(f64, Tensor)> = History::new(self.order);
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            history.push((s, derivative(&x, &denoised, s)?));
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let nodes: Vec<f64> = history.iter().map(|(s, _)| *s).collect();
            let weight = |j| integrate(s, s1, |tau| lagrange(&nodes, j, tau));
            let mut terms = vec![(1.0, &x)];
            terms.extend(history.iter().enumerate().map(|(j, (_, d))| (weight(j), d)));
            x = lincomb(&terms)?;
        }
        Ok(x)
    }
}
