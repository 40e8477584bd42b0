//! Normalisation layers.

use candle_core::{D, Result, Tensor, bail};

use crate::Weight;
use crate::norm::{self, Statistic};
use crate::tensor::{changed, filled, on_cpu, with_slice};

/// Group normalisation (Wu & He 2018) over [B, C, ...], optionally followed by SiLU.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Weight,
    bias: Weight,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Gain and bias [C].
    pub fn new(weight: Weight, bias: Weight, groups: usize, eps: f64) -> Self {
        Self { weight, bias, groups, eps }
    }

    /// Normalises x [B, C, ...].
    ///
    /// # Errors
    /// If x has not as many channels as the gain, or they do not divide into the groups.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// SiLU of [`Self::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    /// [`Self::forward_silu`] in the memory of x, which is a result that was just made: whatever else shares its memory
    /// changes with it.
    pub fn forward_silu_in_place(&self, x: Tensor) -> Result<Tensor> {
        if !on_cpu(&x) {
            return self.forward_silu(&x);
        }
        let pixels = self.pixels(&x)?;
        let (gain, shift) = (self.weight.f32_cached(), self.bias.f32_cached());
        let sizes = [gain.len(), self.groups];
        changed(x.contiguous()?, |x| {
            norm::group_norm(None, sizes, [&gain, &shift], self.eps, true, pixels, x);
        })
    }

    /// Pixels of a channel of x, which has been found to fit.
    fn pixels(&self, x: &Tensor) -> Result<usize> {
        let (gain, shift) = (&self.weight, &self.bias);
        let &[_, channels, ref rest @ ..] = x.dims() else {
            bail!("group normalisation takes [B, C, ...], got {:?}", x.shape())
        };
        if self.groups == 0
            || !channels.is_multiple_of(self.groups)
            || gain.elem_count() != channels
            || shift.elem_count() != channels
        {
            bail!("gain {:?} in {} groups cannot take {:?}", gain.shape(), self.groups, x.shape())
        }
        Ok(rest.iter().product())
    }

    fn run(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let pixels = self.pixels(x)?;
        if !on_cpu(x) {
            let y = self.forward_device(x)?;
            return if silu { y.silu() } else { Ok(y) };
        }
        let (gain, shift) = (self.weight.f32_cached(), self.bias.f32_cached());
        with_slice(x, |data| {
            let sizes = [gain.len(), self.groups];
            let fill = |out: &mut [f32]| {
                norm::group_norm(Some(data), sizes, [&gain, &shift], self.eps, silu, pixels, out);
            };
            // SAFETY: `group_norm` writes every element of every group.
            unsafe { filled(x.shape(), x, fill) }
        })
    }

    /// The same with candle's operations, for devices other than the CPU.
    fn forward_device(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c) = (x.dim(0)?, x.dim(1)?);
        let g = x.reshape((b, self.groups, ()))?;
        let g = g.broadcast_sub(&g.mean_keepdim(2)?)?;
        let var = g.sqr()?.mean_keepdim(2)?;
        let y = g.broadcast_div(&(var + self.eps)?.sqrt()?)?.reshape((b, c, ()))?;
        let w = self.weight.to_tensor(x.device())?.reshape((1, c, 1))?;
        let bias = self.bias.to_tensor(x.device())?.reshape((1, c, 1))?;
        y.broadcast_mul(&w)?.broadcast_add(&bias)?.reshape(x.shape())
    }
}

/// Normalises the rows of x by a statistic of each, on the CPU.
fn normalise_rows(
    x: &Tensor,
    statistic: Statistic,
    gain: Option<&Weight>,
    shift: Option<&Weight>,
    eps: f64,
) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    for weight in [gain, shift].into_iter().flatten() {
        if weight.elem_count() != width {
            bail!("gain or shift {:?} cannot take {:?}", weight.shape(), x.shape())
        }
    }
    let (gain, shift) = (gain.map(Weight::f32_cached), shift.map(Weight::f32_cached));
    with_slice(x, |data| {
        let fill = |out: &mut [f32]| {
            norm::rows(data, width, statistic, gain.as_deref(), shift.as_deref(), eps, out);
        };
        // SAFETY: `rows` writes every element of every row.
        unsafe { filled(x.shape(), x, fill) }
    })
}

/// Layer normalisation (Ba et al. 2016) over the last axis, with or without gain and bias.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Option<Weight>,
    bias: Option<Weight>,
    eps: f64,
}

impl LayerNorm {
    /// Gain and bias [width], either may be absent.
    pub fn new(weight: Option<Weight>, bias: Option<Weight>, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// Normalises x [.., width].
    ///
    /// # Errors
    /// If x has another width than gain and bias.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !on_cpu(x) {
            return self.forward_device(x);
        }
        normalise_rows(x, Statistic::Layer, self.weight.as_ref(), self.bias.as_ref(), self.eps)
    }

    /// The normalised tokens x [B, L, width], modulated by their sample's condition: norm(x) (1 + scale) + shift
    /// (adaptive layer normalisation, Peebles & Xie 2023), in one pass where the layer has no gain and bias of its own.
    /// `shift` and `scale` [B, 1, width].
    ///
    /// # Errors
    /// If the shapes do not fit each other.
    pub fn forward_modulated(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let gain = (scale + 1.0)?;
        if !on_cpu(x) || self.weight.is_some() || self.bias.is_some() {
            return self.forward(x)?.broadcast_mul(&gain)?.broadcast_add(shift);
        }
        for part in [shift, scale] {
            if part.dims() != [batch, 1, width] {
                bail!("a modulation {:?} cannot take {:?}", part.shape(), x.shape())
            }
        }
        let sample = (length * width).max(1);
        with_slice(x, |x_data| {
            with_slice(&gain, |gain| {
                with_slice(shift, |shift| {
                    let fill = |out: &mut [f32]| {
                        let parts = gain.chunks_exact(width.max(1)).zip(shift.chunks_exact(width.max(1)));
                        let samples = x_data.chunks_exact(sample).zip(out.chunks_exact_mut(sample));
                        for ((x, out), (gain, shift)) in samples.zip(parts) {
                            norm::rows(x, width, Statistic::Layer, Some(gain), Some(shift), self.eps, out);
                        }
                    };
                    // SAFETY: every row of every sample is written.
                    unsafe { filled(x.shape(), x, fill) }
                })
            })
        })
    }

    /// The same with candle's operations, for devices other than the CPU.
    fn forward_device(&self, x: &Tensor) -> Result<Tensor> {
        let c = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let var = c.sqr()?.mean_keepdim(D::Minus1)?;
        let mut y = c.broadcast_div(&(var + self.eps)?.sqrt()?)?;
        if let Some(w) = &self.weight {
            y = y.broadcast_mul(&w.to_tensor(x.device())?)?;
        }
        if let Some(b) = &self.bias {
            y = y.broadcast_add(&b.to_tensor(x.device())?)?;
        }
        Ok(y)
    }
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019) over the last axis.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Option<Weight>,
    eps: f64,
}

impl RmsNorm {
    /// Gain [width], if there is one.
    pub fn new(weight: Option<Weight>, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// Normalises x [.., width].
    ///
    /// # Errors
    /// If x has another width than the gain.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !on_cpu(x) {
            return self.forward_device(x);
        }
        normalise_rows(x, Statistic::RootMeanSquare, self.weight.as_ref(), None, self.eps)
    }

    /// The same with candle's operations, for devices other than the CPU.
    fn forward_device(&self, x: &Tensor) -> Result<Tensor> {
        let ms = x.sqr()?.mean_keepdim(D::Minus1)?;
        let y = x.broadcast_div(&(ms + self.eps)?.sqrt()?)?;
        match &self.weight {
            Some(w) => y.broadcast_mul(&w.to_tensor(x.device())?),
            None => Ok(y),
        }
    }
}
