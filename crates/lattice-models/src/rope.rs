//! Rotary position embedding over several axes (Su et al. 2021).

use candle_core::{Result, Tensor};
use lattice_kernels::ops;

/// Cosines and sines for each token and pair of values.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// [L, D / 2].
    cos: Tensor,
    /// [L, D / 2].
    sin: Tensor,
}

impl Rope {
    /// Angles position * theta^(-2 i / width), i counting the pairs of an axis; `widths` are the axes' shares of a head
    /// (even, D in all), `positions` one number per axis for each token.
    pub(crate) fn new<const N: usize>(
        positions: &[[f64; N]],
        widths: &[usize; N],
        theta: f64,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let frequencies = widths.map(|width| {
            (0..width / 2).map(|i| theta.powf(-((2 * i) as f64) / width as f64)).collect::<Vec<_>>()
        });
        let angles: Vec<f64> = positions
            .iter()
            .flat_map(|p| p.iter().zip(&frequencies).flat_map(|(&p, f)| f.iter().map(move |f| p * f)))
            .collect();
        let shape = (positions.len(), widths.iter().map(|w| w / 2).sum::<usize>());
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
            Tensor::from_vec(values, shape, device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// Rotates neighbouring pairs (2i, 2i + 1) of each head of x [B, L, H * D].
    pub(crate) fn rotate_neighbours(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        ops::rotate_neighbours(x, heads, &self.cos, &self.sin)
    }
}
