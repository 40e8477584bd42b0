//! Residual blocks.

use candle_core::{Result, Tensor};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::Scope;

use crate::error::Built;
use crate::layers::ScopeExt;

/// Two convolutions, each after a group norm and SiLU, with the time embedding added between and a skip around them.
#[derive(Debug)]
pub(super) struct ResBlock {
    in_layers: (GroupNorm, Conv2d),
    emb_layers: Linear,
    out_layers: (GroupNorm, Conv2d),
    skip_connection: Option<Conv2d>,
}

impl ResBlock {
    /// A block for `inputs` channels.
    pub(super) fn new(scope: &Scope<'_>, inputs: usize, emb_width: usize) -> Built<Self> {
        let outputs = scope.shape("out_layers.3.weight", 4)?[0];
        let (in_layers, out_layers) = (scope.at("in_layers"), scope.at("out_layers"));
        let conv3 = Conv2dConfig::padded(1);
        let skip = scope.at("skip_connection");
        Ok(Self {
            in_layers: (
                in_layers.at(0).group_norm(inputs, 32, 1e-5)?,
                in_layers.at(2).conv2d(inputs, outputs, 3, conv3)?,
            ),
            emb_layers: scope.at("emb_layers").at(1).linear(emb_width, outputs)?,
            out_layers: (
                out_layers.at(0).group_norm(outputs, 32, 1e-5)?,
                out_layers.at(3).conv2d(outputs, outputs, 3, conv3)?,
            ),
            skip_connection: if inputs == outputs {
                None
            } else {
                Some(skip.conv2d(inputs, outputs, 1, Conv2dConfig::padded(0))?)
            },
        })
    }

    pub(super) fn out_channels(&self) -> usize {
        self.out_layers.1.out_channels()
    }

    /// x [B, C, H, W]; `emb` [B, E] has been through SiLU, which all blocks share.
    pub(super) fn forward(&self, x: &Tensor, emb: &Tensor) -> Result<Tensor> {
        let mut h = self.in_layers.1.forward(&self.in_layers.0.forward_silu(x)?)?;
        h = ops::add_per_channel(h, &self.emb_layers.forward(emb)?)?;
        h = self.out_layers.0.forward_silu_in_place(h)?;
        h = self.out_layers.1.forward(&h)?;
        match &self.skip_connection {
            Some(skip) => ops::add_to(h, &skip.forward(x)?),
            None => ops::add_to(h, x),
        }
    }
}
