//! Convolution over frames.

use candle_core::{Result, Tensor, bail};

use super::{Conv2d, Conv2dConfig};
use crate::Weight;

/// What stands before the first and after the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporalPadding {
    /// So many frames of zeros on either side.
    Zeros(usize),
    /// Frames before the first are the first, so that none sees a later one (the video VAEs).
    Causal,
}

/// Stride and padding of a 3-D convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv3dConfig {
    /// Height and width: as for pictures.
    pub space: Conv2dConfig,
    /// Step between frames of the result.
    pub stride: usize,
    /// Frames beyond the ends.
    pub padding: TemporalPadding,
}

/// 3-D convolution of [B, C, T, H, W]. Weight [out, in / groups, kt, kh, kw], bias [out].
///
/// A frame of the result is the 2-D convolution of the kt frames it sees, their channels side by side: a stored weight
/// [out, in, kt, kh, kw] is, as it lies, the weight [out, in kt, kh, kw] of that. So the 2-D kernels do the work, and
/// beyond the result memory holds kt frames of input.
#[derive(Clone, Debug)]
pub struct Conv3d {
    frame: Conv2d,
    taps: usize,
    config: Conv3dConfig,
}

impl Conv3d {
    /// From the stored weight.
    ///
    /// # Errors
    /// If the weight is not 5-D, has no taps along time, or does not fit groups and bias, or the stride is 0.
    pub fn new(weight: Weight, bias: Option<Weight>, config: Conv3dConfig) -> Result<Self> {
        let &[outputs, inputs, taps, kh, kw] = weight.dims() else {
            bail!("a weight {:?} does not make a 3-D convolution", weight.shape())
        };
        if taps == 0 || config.stride == 0 {
            bail!("kernel and stride of a 3-D convolution are at least 1: {:?}, {config:?}", weight.shape())
        }
        let frame = Conv2d::new(weight.reshape((outputs, inputs * taps, kh, kw))?, bias, config.space)?;
        Ok(Self { frame, taps, config })
    }

    /// x [B, in, T, H, W] to [B, out, T', H', W'].
    ///
    /// # Errors
    /// If x has other channels than the weight, or is smaller than the kernel along any axis.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, frames, height, width) = x.dims5()?;
        let (before, after) = match self.config.padding {
            TemporalPadding::Zeros(n) => (n, n),
            TemporalPadding::Causal => (self.taps - 1, 0),
        };
        let Some(last) = (before + frames + after).checked_sub(self.taps).filter(|_| frames > 0) else {
            bail!("{frames} frames are fewer than the {} that a convolution sees", self.taps)
        };
        let mut out = Vec::with_capacity(last / self.config.stride + 1);
        for start in (0..=last).step_by(self.config.stride) {
            let seen =
                self.frames(x, start, before)?.reshape((batch, channels * self.taps, height, width))?;
            out.push(self.frame.forward(&seen)?.unsqueeze(2)?);
        }
        Tensor::cat(&out, 2)
    }

    /// The frames that the one of the result sees which starts at frame `start` of the padded input:
    /// [B, in, kt, H, W].
    fn frames(&self, x: &Tensor, start: usize, before: usize) -> Result<Tensor> {
        let frames = x.dim(2)?;
        let inside = |t: usize| t.clamp(before, before + frames) - before;
        let (first, end) = (inside(start), inside(start + self.taps));
        let (missing, beyond) = (before.saturating_sub(start).min(self.taps), self.taps - (end - first));
        let beyond = beyond - missing;
        let seen = x.narrow(2, first, end - first)?;
        if missing + beyond == 0 {
            return seen.contiguous();
        }
        match self.config.padding {
            TemporalPadding::Zeros(_) => seen.pad_with_zeros(2, missing, beyond),
            TemporalPadding::Causal => {
                let head = x.narrow(2, 0, 1)?;
                let mut parts = vec![head; missing];
                parts.push(seen);
                Tensor::cat(&parts, 2)
            }
        }
    }
}
