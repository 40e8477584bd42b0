//! Layers: a [`Weight`] (or two) and the settings that no tensor tells.

use candle_core::{D, Result, Tensor};

use crate::Weight;

/// y = x W^T + b over the last axis. Weight [out, in] (trailing unit axes are dropped), bias [out].
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}

impl Linear {
    /// From a weight of shape [out, in], or a 1x1 convolution's [out, in, 1, 1].
    pub fn new(weight: Weight, bias: Option<Weight>) -> Result<Self> {
        let dims = weight.dims();
        let weight = if dims.len() > 2 {
            weight.reshape((dims[0], dims[1..].iter().product::<usize>()))?
        } else {
            weight
        };
        Ok(Self { weight, bias })
    }

    /// Width of the result.
    pub fn out_features(&self) -> usize {
        self.weight.dims()[0]
    }

    /// x [.., in] to [.., out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let w = self.weight.to_tensor(x.device())?;
        let mut dims = x.dims().to_vec();
        let rows = x.elem_count() / x.dim(D::Minus1)?;
        let y = x.reshape((rows, x.dim(D::Minus1)?))?.matmul(&w.t()?)?;
        let y = match &self.bias {
            Some(b) => y.broadcast_add(&b.to_tensor(x.device())?)?,
            None => y,
        };
        if let Some(last) = dims.last_mut() {
            *last = self.out_features();
        }
        y.reshape(dims)
    }
}

/// Stride, zero padding on each side, dilation and groups of a 2-D convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Step between outputs, both axes.
    pub stride: usize,
    /// Zeros added (top, bottom, left, right).
    pub padding: [usize; 4],
    /// Distance between taps.
    pub dilation: usize,
    /// Channel groups.
    pub groups: usize,
}

impl Conv2dConfig {
    /// Stride 1 and the same padding on all sides.
    pub fn padded(padding: usize) -> Self {
        Self { stride: 1, padding: [padding; 4], dilation: 1, groups: 1 }
    }

    /// With another stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }
}

/// 2-D convolution of [B, C, H, W]. Weight [out, in/groups, kh, kw], bias [out].
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Option<Weight>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// From the stored weight.
    pub fn new(weight: Weight, bias: Option<Weight>, config: Conv2dConfig) -> Result<Self> {
        Ok(Self { weight, bias, config })
    }

    /// Number of output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Number of input channels per group.
    pub fn in_channels(&self) -> usize {
        self.weight.dims()[1]
    }

    /// x [B, in, H, W] to [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [top, bottom, left, right] = self.config.padding;
        let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()?;
        let w = self.weight.to_tensor(x.device())?;
        let y = x.conv2d(&w, 0, self.config.stride, self.config.dilation, self.config.groups)?;
        match &self.bias {
            Some(b) => y.broadcast_add(&b.to_tensor(x.device())?.reshape((1, (), 1, 1))?),
            None => Ok(y),
        }
    }
}

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

/// Rows of a table by integer id. Weight [vocabulary, width].
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// From the stored table.
    pub fn new(weight: Weight) -> Self {
        Self { weight }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The rows of `ids`, [ids.len(), width]. Only those rows are read from the file.
    ///
    /// # Errors
    /// If an id is outside the table.
    pub fn forward(&self, ids: &[u32], device: &candle_core::Device) -> Result<Tensor> {
        let width = self.width();
        let mut out = vec![0f32; ids.len() * width];
        for (row, &id) in out.chunks_exact_mut(width.max(1)).zip(ids) {
            if id as usize >= self.rows() {
                candle_core::bail!("token id {id} is outside the table of {} rows", self.rows())
            }
            self.weight.read_f32(id as usize * width, row);
        }
        Tensor::from_vec(out, (ids.len(), width), device)
    }
}
