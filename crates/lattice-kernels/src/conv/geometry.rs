//! Sizes of a convolution.

use candle_core::{Result, bail};

use crate::nn::Conv2dConfig;

/// All sizes of one call, checked against each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    /// Channels of the input, all groups.
    pub(crate) inputs: usize,
    /// Channels of the result, all groups.
    pub(crate) outputs: usize,
    /// Channel groups, at least 1.
    pub(crate) groups: usize,
    /// Height and width of the input.
    pub(crate) size: [usize; 2],
    /// Height and width of the result.
    pub(crate) out_size: [usize; 2],
    /// Height and width of the kernel, at least 1.
    pub(crate) kernel: [usize; 2],
    /// Step between outputs, at least 1.
    pub(crate) stride: usize,
    /// Distance between taps, at least 1.
    pub(crate) dilation: usize,
    /// Zeros above and to the left.
    pub(crate) before: [usize; 2],
}

impl Geometry {
    /// The convolution of x [batch, in, h, w] with a weight [out, in / groups, kh, kw].
    ///
    /// # Errors
    /// If channels, groups and shapes do not fit each other, or the padded input is smaller than the kernel.
    pub(crate) fn new(x: &[usize], weight: &[usize], config: &Conv2dConfig) -> Result<Self> {
        let (&[batch, inputs, h, w], &[outputs, group_inputs, kh, kw]) = (x, weight) else {
            bail!("a 2-D convolution takes 4-D tensors, got {x:?} and weight {weight:?}")
        };
        let Conv2dConfig { stride, padding: [top, bottom, left, right], dilation, groups } = *config;
        if stride == 0 || dilation == 0 || groups == 0 || kh == 0 || kw == 0 {
            bail!(
                "stride, dilation, groups and kernel of a convolution are at least 1: {config:?}, weight {weight:?}"
            )
        }
        if !outputs.is_multiple_of(groups) || group_inputs.checked_mul(groups) != Some(inputs) {
            bail!("a weight {weight:?} in {groups} groups cannot take {x:?}")
        }
        let extent = |size: usize, before: usize, after: usize, kernel: usize| {
            let padded = size.checked_add(before)?.checked_add(after)?;
            let reach = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
            Some(padded.checked_sub(reach)? / stride + 1)
        };
        let (Some(out_h), Some(out_w)) = (extent(h, top, bottom, kh), extent(w, left, right, kw)) else {
            bail!("an input of {h}x{w} is smaller than the kernel {kh}x{kw} ({config:?})")
        };
        Ok(Self {
            batch,
            inputs,
            outputs,
            groups,
            size: [h, w],
            out_size: [out_h, out_w],
            kernel: [kh, kw],
            stride,
            dilation,
            before: [top, left],
        })
    }

    /// Shape of the result.
    pub(crate) fn out_dims(&self) -> [usize; 4] {
        [self.batch, self.outputs, self.out_size[0], self.out_size[1]]
    }

    /// Whether each output depends on the pixel in its place alone.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.size == self.out_size && self.before == [0, 0]
    }
}
