//! Normalisation layers.

use candle_core::{D, Result, Tensor};

use crate::Weight;

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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c) = (x.dim(0)?, x.dim(1)?);
        let g = x.reshape((b, self.groups, ()))?;
        let g = g.broadcast_sub(&g.mean_keepdim(2)?)?;
        let var = g.sqr()?.mean_keepdim(2)?;
        let y = g.broadcast_div(&(var + self.eps)?.sqrt()?)?.reshape((b, c, ()))?;
        let w = self.weight.to_tensor(x.device())?.reshape((1, c, 1))?;
        let bias = self.bias.to_tensor(x.device())?.reshape((1, c, 1))?;
        y.broadcast_mul(&w)?.broadcast_add(&bias)?.reshape(x.shape())
    }

    /// SiLU of [`Self::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)?.silu()
    }
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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ms = x.sqr()?.mean_keepdim(D::Minus1)?;
        let y = x.broadcast_div(&(ms + self.eps)?.sqrt()?)?;
        match &self.weight {
            Some(w) => y.broadcast_mul(&w.to_tensor(x.device())?),
            None => Ok(y),
        }
    }
}
