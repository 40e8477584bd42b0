//! Convolution layers.

use candle_core::{Result, Tensor, bail};

use crate::Weight;
use crate::conv::{Geometry, conv2d};
use crate::tensor::{filled, on_cpu, with_slice};

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
    ///
    /// # Errors
    /// If the weight is not 4-D, its outputs do not divide into the groups, or the bias has not one element per output.
    pub fn new(weight: Weight, bias: Option<Weight>, config: Conv2dConfig) -> Result<Self> {
        let &[outputs, ..] = weight.dims() else { bail!("the weight of a convolution is not a scalar") };
        if weight.dims().len() != 4 || config.groups == 0 || !outputs.is_multiple_of(config.groups) {
            bail!("a weight {:?} does not make a 2-D convolution in {} groups", weight.shape(), config.groups)
        }
        if let Some(b) = &bias
            && b.elem_count() != outputs
        {
            bail!("bias of shape {:?} on a convolution of weight {:?}", b.shape(), weight.shape())
        }
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
    ///
    /// # Errors
    /// If x has other channels than the weight, or is smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let geometry = Geometry::new(x.dims(), self.weight.dims(), &self.config)?;
        if !on_cpu(x) {
            return self.forward_device(x);
        }
        let bias = self.bias.as_ref().map(Weight::f32_cached);
        with_slice(x, |x_data| {
            let fill = |out: &mut [f32]| conv2d(&geometry, x_data, &self.weight, bias.as_deref(), out);
            // SAFETY: `conv2d` writes every element of the result.
            unsafe { filled(&geometry.out_dims(), x, fill) }
        })
    }

    /// The same with candle's operations, for devices other than the CPU.
    fn forward_device(&self, x: &Tensor) -> Result<Tensor> {
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
