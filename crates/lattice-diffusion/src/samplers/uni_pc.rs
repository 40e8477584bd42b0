//! Unified predictor-corrector (UniPC, Zhao et al., arXiv 2302.04867), multistep, on the denoised prediction.

use candle_core::Tensor;

use super::math::{History, solve};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// The function B(h) of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniPcVariant {
    /// B(h) = h.
    Bh1,
    /// B(h) = e^h - 1.
    Bh2,
}

/// UniPC of order 3. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct UniPc {
    /// The function B(h).
    pub variant: UniPcVariant,
}

/// What a last level of 0 becomes: the solver works in the logarithm of the signal-to-noise ratio.
const LAST_SIGMA: f64 = 0.001;
const MAX_ORDER: usize = 3;

/// The variance-preserving process at a level: signal a, noise b, lambda = ln(a/b).
#[derive(Clone, Copy)]
struct Level {
    sigma: f64,
    a: f64,
    b: f64,
    lambda: f64,
}

impl Level {
    fn new(sigma: f64) -> Self {
        let a = 1.0 / (sigma * sigma + 1.0).sqrt();
        let b = sigma * a;
        Self { sigma, a, b, lambda: -sigma.ln() }
    }
}

/// One update, its coefficients and the differences D_j that it extrapolates.
struct Update {
    /// Factor of y.
    keep: f64,
    /// Factor of M_0 before the differences.
    gain: f64,
    /// a(s1) B.
    scale: f64,
    /// r_j of the older predictions.
    ratios: Vec<f64>,
    predictor: Vec<f64>,
    corrector: Vec<f64>,
}

impl Update {
    fn new(variant: UniPcVariant, older: &[Level], from: Level, to: Level) -> Self {
        let order = older.len() + 1;
        let h = to.lambda - from.lambda;
        let z = -h;
        let b = match variant {
            UniPcVariant::Bh1 => z,
            UniPcVariant::Bh2 => z.exp_m1(),
        };
        let ratios: Vec<f64> = older.iter().map(|level| (level.lambda - from.lambda) / h).collect();
        let nodes: Vec<f64> = ratios.iter().copied().chain([1.0]).collect();
        let (mut right, mut g, mut factorial) = (Vec::with_capacity(order), z.exp_m1() / z - 1.0, 1.0);
        for i in 1..=order {
            right.push(g * factorial / b);
            factorial *= (i + 1) as f64;
            g = g / z - 1.0 / factorial;
        }
        let system = |n: usize| -> Vec<f64> {
            let rows = (0..n).map(|i| nodes[..n].iter().map(|r| r.powi(i as i32)).collect()).collect();
            solve(rows, right[..n].to_vec())
        };
        // Orders 1 and 2 use the paper's simplification of their single coefficient.
        let predictor = match order {
            1 => vec![],
            2 => vec![0.5],
            _ => system(order - 1),
        };
        let corrector = if order == 1 { vec![0.5] } else { system(order) };
        Self { keep: to.b / from.b, gain: -to.a * z.exp_m1(), scale: to.a * b, ratios, predictor, corrector }
    }

    /// y1 from y, M_0 (newest first in `history`) and, in the corrector, the prediction at the target.
    fn apply(&self, y: &Tensor, history: &[&Tensor], at_target: Option<&Tensor>) -> Result<Tensor> {
        let weights = if at_target.is_some() { &self.corrector } else { &self.predictor };
        let mut terms = vec![(self.keep, y), (self.gain, history[0])];
        // Differences (M_j - M_0)/r_j, the target's having r = 1.
        for ((weight, r), m) in weights.iter().zip(&self.ratios).zip(&history[1..]) {
            let c = -self.scale * weight / r;
            terms[1].0 -= c;
            terms.push((c, m));
        }
        if let (Some(m), Some(weight)) = (at_target, weights.last()) {
            let c = -self.scale * weight;
            terms[1].0 -= c;
            terms.push((c, m));
        }
        Ok(lincomb(&terms)?)
    }
}

impl Sampler for UniPc {
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor) -> Result<Tensor> {
        let levels: Vec<Level> = run.sigmas().iter().map(|&s| Level::new(s)).collect();
        let (Some(first), Some(last), steps) = (levels.first(), levels.last(), run.step_count()) else {
            return Ok(x);
        };
        if steps == 0 {
            return Ok(x);
        }
        let predict = |run: &mut SamplerRun<'_>, y: &Tensor, level: &Level| -> Result<Tensor> {
            run.denoise(&lincomb(&[(1.0 / level.a, y)])?, level.sigma)
        };
        let mut y = lincomb(&[(first.a, &x)])?;
        let mut history: History<Tensor> = History::new(MAX_ORDER);
        let order = MAX_ORDER.min(steps - 1);
        let newest = predict(run, &y, first)?;
        run.report(0, first.sigma, &x, &newest)?;
        history.push(newest);
        for k in 1..=steps {
            // With a single step the order is 0 and nothing is updated, as in the reference.
            let q = if k < order { k } else { order.min(steps + 1 - k) };
            if q > 0 {
                let older: Vec<Level> = (1..q).map(|j| levels[k - 1 - j]).collect();
                let update = Update::new(self.variant, &older, levels[k - 1], levels[k]);
                let past: Vec<&Tensor> = history.iter().take(q).collect();
                let predicted = update.apply(&y, &past, None)?;
                if k == steps {
                    y = predicted;
                } else {
                    let at_target = predict(run, &predicted, &levels[k])?;
                    y = update.apply(&y, &past, Some(&at_target))?;
                    run.report(k, levels[k].sigma, &predicted, &at_target)?;
                    history.push(at_target);
                }
            }
        }
        Ok(lincomb(&[(1.0 / last.a, &y)])?)
    }

    fn adjust_sigmas(&self, sigmas: &mut [f64]) {
        if let Some(last) = sigmas.last_mut()
            && *last == 0.0
        {
            *last = f64::from(LAST_SIGMA as f32);
        }
    }

    fn drops_penultimate_sigma(&self) -> bool {
        true
    }
}
