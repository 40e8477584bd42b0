//! The convolutions by which control networks read a picture, eight pixels to a cell.

use candle_core::{Result, Tensor};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_weights::Scope;

use crate::error::Built;
use crate::layers::ScopeExt;

/// Convolutions with stride 2: the 3rd, 5th and 7th of eight.
const STRIDED: [usize; 3] = [2, 4, 6];
const CONVS: usize = 8;

/// The convolutions below `scope` (activations stand between), and the channels of their result.
pub(crate) fn load(scope: &Scope<'_>) -> Built<(Vec<Conv2d>, usize)> {
    let mut channels = scope.shape("0.weight", 4)?[1];
    let mut convs = Vec::with_capacity(CONVS);
    for i in 0..CONVS {
        let conv = scope.at(2 * i);
        let outputs = conv.shape("weight", 4)?[0];
        let stride = if STRIDED.contains(&i) { 2 } else { 1 };
        convs.push(conv.conv2d(channels, outputs, 3, Conv2dConfig::padded(1).stride(stride))?);
        channels = outputs;
    }
    Ok((convs, channels))
}

/// Features [B, C, H, W] of a picture [B, 3, 8 H, 8 W].
pub(crate) fn forward(convs: &[Conv2d], picture: &Tensor) -> Result<Tensor> {
    let mut features = picture.clone();
    for (i, conv) in convs.iter().enumerate() {
        features = conv.forward(&features)?;
        if i + 1 < convs.len() {
            features = features.silu()?;
        }
    }
    Ok(features)
}
