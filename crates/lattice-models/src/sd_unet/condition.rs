//! The embedding that residual blocks read: time, and the added condition of SDXL.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::Linear;
use lattice_weights::Scope;

use super::config::UnetConfig;
use crate::embedding::timestep_embedding;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::NetworkInput;

/// Two linear layers with SiLU between.
#[derive(Debug)]
pub(super) struct Mlp(Linear, Linear);

impl Mlp {
    /// Layers `0` and `2` of a sequence.
    fn new(scope: &Scope<'_>, inputs: usize) -> Built<Self> {
        Self::named(scope, ["0", "2"], inputs)
    }

    /// Layers of these names.
    pub(super) fn named(scope: &Scope<'_>, [first, second]: [&str; 2], inputs: usize) -> Built<Self> {
        let (first, second) = (scope.at(first), scope.at(second));
        let hidden = first.shape("weight", 2)?[0];
        let outputs = second.shape("weight", 2)?[0];
        Ok(Self(first.linear(inputs, hidden)?, second.linear(hidden, outputs)?))
    }

    /// Width of the result.
    pub(super) fn out_features(&self) -> usize {
        self.1.out_features()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?.silu()?)
    }
}

/// `time_embed` and `label_emb`.
#[derive(Debug)]
pub(super) struct Conditioner {
    time_embed: Mlp,
    time_width: usize,
    label_emb: Option<(Mlp, usize)>,
}

impl Conditioner {
    pub(super) fn new(scope: &Scope<'_>, config: &UnetConfig) -> Built<Self> {
        let time_embed = Mlp::new(&scope.at("time_embed"), config.model_channels)?;
        let label_emb = match config.added_width {
            Some(width) => {
                // Both embeddings are added, so their widths must agree.
                scope.tensor("label_emb.0.2.bias", &[time_embed.1.out_features()])?;
                Some((Mlp::new(&scope.at("label_emb").at(0), width)?, width))
            }
            None => None,
        };
        Ok(Self { time_embed, time_width: config.model_channels, label_emb })
    }

    /// Width of the embedding.
    pub(super) fn width(&self) -> usize {
        self.time_embed.1.out_features()
    }

    /// Time embedding plus added condition, through the SiLU that all residual blocks begin with, [B, E].
    pub(super) fn forward(&self, input: &NetworkInput) -> Result<Tensor> {
        self.forward_with(input, None)
    }

    /// The same with something more added, [1, E].
    pub(super) fn forward_with(&self, input: &NetworkInput, more: Option<&Tensor>) -> Result<Tensor> {
        let mut emb = self.time_embed.forward(&timestep_embedding(&input.timesteps, self.time_width)?)?;
        if let Some((label_emb, width)) = &self.label_emb {
            let Some(y) = &input.y else { bail!("this network needs a vector condition of width {width}") };
            if y.dim(1)? != *width {
                bail!("the vector condition is {} wide, this network needs {width}", y.dim(1)?)
            }
            emb = (emb + label_emb.forward(y)?)?;
        }
        if let Some(more) = more {
            emb = emb.broadcast_add(more)?;
        }
        emb.silu()
    }
}
