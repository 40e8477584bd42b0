//! Rotary position embedding over several axes (Su et al. 2021).

use candle_core::{DType, Result, Tensor};

/// Cosines and sines for each token and pair of values.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// [1, L, 1, D / 2].
    cos: Tensor,
    /// [1, L, 1, D / 2].
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
        let shape = (1, positions.len(), 1, widths.iter().map(|w| w / 2).sum::<usize>());
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
            Tensor::from_vec(values, shape, device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// Rotates neighbouring pairs (2i, 2i + 1) of each head of x [B, L, H * D].
    pub(crate) fn rotate_neighbours(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (b, l, width) = x.dims3()?;
        let pairs = x.to_dtype(DType::F32)?.reshape((b, l, heads, width / heads / 2, 2))?;
        let (even, odd) = (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?);
        let (cos, sin) = (&self.cos, &self.sin);
        let first = (even.broadcast_mul(cos)? - odd.broadcast_mul(sin)?)?;
        let second = (even.broadcast_mul(sin)? + odd.broadcast_mul(cos)?)?;
        Tensor::stack(&[first, second], 4)?.reshape((b, l, width))
    }
}
