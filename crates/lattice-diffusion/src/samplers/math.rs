//! Scalar arithmetic that several solvers share.

use candle_core::Tensor;

use super::Result;
use crate::{ModelSampling, lincomb};

/// (x - D)/s, the derivative of the probability-flow equation.
pub(super) fn derivative(x: &Tensor, denoised: &Tensor, s: f64) -> Result<Tensor> {
    Ok(lincomb(&[(1.0 / s, x), (-1.0 / s, denoised)])?)
}

/// x + (x - D)/s (to - s): Euler's step.
pub(super) fn euler_step(x: &Tensor, denoised: &Tensor, s: f64, to: f64) -> Result<Tensor> {
    let ratio = to / s;
    Ok(lincomb(&[(ratio, x), (1.0 - ratio, denoised)])?)
}

/// Target and added noise of an ancestral step from `s` to `s1`: down^2 + up^2 = s1^2.
///
/// In single precision, as the reference computes it: after a long step s1^2 - up^2 cancels so far that the rounding
/// shows in the picture.
pub(super) fn ancestral(s: f64, s1: f64, eta: f64) -> (f64, f64) {
    if eta == 0.0 {
        return (s1, 0.0);
    }
    let (s, s1) = (s as f32, s1 as f32);
    let up = s1.min(eta as f32 * (s1 * s1 * (s * s - s1 * s1) / (s * s)).sqrt());
    (f64::from((s1 * s1 - up * up).sqrt()), f64::from(up))
}

/// An ancestral step of a flow model.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowAncestral {
    /// Noise level that the deterministic part goes to.
    pub(super) down: f64,
    /// Factor that brings the sample from there to the scale of the next level.
    pub(super) rescale: f64,
    /// Noise that is added then.
    pub(super) up: f64,
}

/// The flow counterpart of [`ancestral`]: the sample's scale changes with the level too.
pub(super) fn flow_ancestral(s: f64, s1: f64, eta: f64) -> FlowAncestral {
    let down = s1 * (1.0 + (s1 / s - 1.0) * eta);
    let rescale = (1.0 - s1) / (1.0 - down);
    let up = (s1 * s1 - down * down * rescale * rescale).sqrt();
    FlowAncestral { down, rescale, up }
}

/// s e^lambda(s): the scale of the clean sample at a level, as solvers in lambda see it.
pub(super) fn alpha(model: &ModelSampling, s: f64) -> f64 {
    s * model.half_log_snr(s).exp()
}

/// Integral of `f` from `a` to `b`: Gauss-Legendre with five points on each of 16 parts.
pub(super) fn integrate(a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PARTS: u32 = 16;
    const POINTS: [(f64, f64); 5] = [
        (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
        (-0.538_469_310_105_683, 0.478_628_670_499_366_5),
        (0.0, 0.568_888_888_888_888_9),
        (0.538_469_310_105_683, 0.478_628_670_499_366_5),
        (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    ];
    let half = (b - a) / f64::from(2 * PARTS);
    let part = |k: u32| {
        let middle = a + half * f64::from(2 * k + 1);
        POINTS.iter().map(|(at, weight)| weight * f(middle + half * at)).sum::<f64>()
    };
    half * (0..PARTS).map(part).sum::<f64>()
}

/// The j-th Lagrange basis polynomial over the nodes, at `x`.
pub(super) fn lagrange(nodes: &[f64], j: usize, x: f64) -> f64 {
    let others = nodes.iter().enumerate().filter(|&(k, _)| k != j);
    others.map(|(_, node)| (x - node) / (nodes[j] - node)).product()
}

/// Solves A x = b by Gaussian elimination with pivoting; a singular system gives values that are not finite.
pub(super) fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&p, &q| a[p][column].abs().total_cmp(&a[q][column].abs()));
        let pivot = pivot.unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            for k in column..n {
                a[row][k] -= factor * a[column][k];
            }
            b[row] -= factor * b[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * b[k]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}

/// The last values of a multistep solver, newest first.
#[derive(Clone, Debug)]
pub(super) struct History<T> {
    values: std::collections::VecDeque<T>,
    capacity: usize,
}

impl<T> History<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { values: std::collections::VecDeque::new(), capacity }
    }

    pub(super) fn push(&mut self, value: T) {
        if self.capacity > 0 {
            self.values.truncate(self.capacity - 1);
            self.values.push_front(value);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadrature_and_elimination() {
        assert!((integrate(1.0, 3.0, |x| x * x * x) - 20.0).abs() < 1e-12);
        assert!((integrate(0.0, -8.0, f64::exp) - ((-8f64).exp() - 1.0)).abs() < 1e-12);
        let x =
            solve(vec![vec![0.0, 2.0, 1.0], vec![1.0, 1.0, 1.0], vec![2.0, 0.0, 3.0]], vec![7.0, 6.0, 11.0]);
        assert!(x.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{x:?}");
    }

    #[test]
    fn ancestral_steps_keep_the_variance() {
        for (s, s1) in [(14.6, 9.0), (1.0, 0.5), (0.3, 0.01)] {
            let (down, up) = ancestral(s, s1, 1.0);
            assert!((down * down + up * up - s1 * s1).abs() < 1e-6 * s1 * s1);
            assert_eq!(ancestral(s, s1, 0.0), (s1, 0.0));
        }
        let still = flow_ancestral(0.8, 0.6, 0.0);
        assert_eq!((still.down, still.rescale, still.up), (0.6, 1.0, 0.0));
    }
}
