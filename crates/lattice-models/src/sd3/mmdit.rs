//! The network.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, LayerNorm, Linear};
use lattice_weights::{Scope, Weight};

use super::block::JointBlock;
use super::config::MmditConfig;
use crate::embedding::timestep_embedding;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::{DiffusionNetwork, NetworkInput};
use crate::options::ForwardOptions;
use crate::transformer::{Embedder, Modulation, check_width, pad_circular, plain_norm};

/// What makes tokens and a condition of the inputs.
#[derive(Debug)]
pub(super) struct Embeddings {
    config: MmditConfig,
    x_embedder: Conv2d,
    pos_embed: Weight,
    t_embedder: Embedder,
    time_width: usize,
    y_embedder: Embedder,
    context_embedder: Linear,
}

/// The convolution that makes tokens of patches, below `scope`.
pub(super) fn patch_embedder(
    scope: &Scope<'_>,
    channels: usize,
    hidden: usize,
    patch: usize,
) -> Built<Conv2d> {
    scope.conv2d(channels, hidden, patch, Conv2dConfig::padded(0).stride(patch))
}

/// Tokens [B, L, C] of the patches of a latent [B, C', H, W], and how many rows and columns there are.
pub(super) fn patches(embedder: &Conv2d, x: &Tensor, patch: usize) -> Result<(Tensor, usize, usize)> {
    let x = embedder.forward(&pad_circular(x, patch)?)?;
    let (rows, columns) = (x.dim(2)?, x.dim(3)?);
    Ok((x.flatten_from(2)?.transpose(1, 2)?, rows, columns))
}

impl Embeddings {
    pub(super) fn new(scope: &Scope<'_>, config: &MmditConfig) -> Built<Self> {
        let (hidden, patch) = (config.hidden, config.patch);
        let positions = config.position_side * config.position_side;
        let t_embedder = scope.at("t_embedder").at("mlp");
        Ok(Self {
            x_embedder: patch_embedder(
                &scope.at("x_embedder").at("proj"),
                config.in_channels,
                hidden,
                patch,
            )?,
            pos_embed: scope.tensor("pos_embed", &[1, positions, hidden])?,
            time_width: Embedder::input_width(&t_embedder, "0")?,
            t_embedder: Embedder::new(&t_embedder, ["0", "2"], hidden)?,
            y_embedder: Embedder::new(&scope.at("y_embedder").at("mlp"), ["0", "2"], hidden)?,
            context_embedder: scope.at("context_embedder").linear(config.context_width, hidden)?,
            config: config.clone(),
        })
    }

    /// Tokens of a latent with their positions, and how many rows and columns of patches there are.
    pub(super) fn image(&self, x: &Tensor) -> Result<(Tensor, usize, usize)> {
        let channels = x.dims4()?.1;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this network needs {}", self.config.in_channels)
        }
        let (x, rows, columns) = patches(&self.x_embedder, x, self.config.patch)?;
        let x = x.broadcast_add(&self.positions(rows, columns, x.device())?)?;
        Ok((x, rows, columns))
    }

    /// Tokens of the encoded text.
    pub(super) fn text(&self, input: &NetworkInput) -> Result<Tensor> {
        let Some(context) = &input.context else { bail!("this network needs encoded text") };
        check_width("the encoded text", context.dims3()?.2, self.config.context_width)?;
        self.context_embedder.forward(context)
    }

    /// Sum of the embedded time and vector condition, after SiLU, [B, C].
    pub(super) fn condition(&self, timesteps: &Tensor, y: &Tensor) -> Result<Tensor> {
        check_width("the vector condition", y.dim(1)?, self.config.pooled_width)?;
        let time = self.t_embedder.forward(&timestep_embedding(timesteps, self.time_width)?)?;
        time.broadcast_add(&self.y_embedder.forward(y)?)?.silu()
    }

    /// The centre of the stored table for a grid of `rows` by `columns` patches, [1, rows * columns, C].
    fn positions(&self, rows: usize, columns: usize, device: &candle_core::Device) -> Result<Tensor> {
        let (side, width) = (self.config.position_side, self.config.hidden);
        if rows > side || columns > side {
            bail!(
                "{rows} by {columns} patches are more than the {side} by {side} this network knows positions of"
            )
        }
        let (top, left) = ((side - rows) / 2, (side - columns) / 2);
        let mut values = vec![0f32; rows * columns * width];
        for (row, out) in values.chunks_exact_mut((columns * width).max(1)).enumerate() {
            self.pos_embed.read_f32(((top + row) * side + left) * width, out);
        }
        Tensor::from_vec(values, (1, rows * columns, width), device)
    }
}

/// The multimodal diffusion transformer.
#[derive(Debug)]
pub struct Mmdit {
    config: MmditConfig,
    embeddings: Embeddings,
    joint_blocks: Vec<JointBlock>,
    final_norm: LayerNorm,
    final_modulation: Modulation,
    final_linear: Linear,
}

impl Mmdit {
    /// Builds the network of that structure whose tensors stand below `scope`.
    pub fn new(scope: &Scope<'_>, config: MmditConfig) -> Built<Self> {
        let (hidden, patch) = (config.hidden, config.patch);
        let (blocks, last) = (scope.at("joint_blocks"), scope.at("final_layer"));
        Ok(Self {
            embeddings: Embeddings::new(scope, &config)?,
            joint_blocks: (0..config.depth)
                .map(|i| JointBlock::new(&blocks.at(i), &config, i + 1 == config.depth))
                .collect::<Built<_>>()?,
            final_norm: plain_norm(1e-6),
            final_modulation: Modulation::new(&last.at("adaLN_modulation").at(1), hidden, 2)?,
            final_linear: last.at("linear").linear(hidden, patch * patch * config.out_channels)?,
            config,
        })
    }

    /// The structure.
    pub fn config(&self) -> &MmditConfig {
        &self.config
    }

    /// Tokens of p x p patches, values in the order (row, column, channel), to [B, C, rows * p, columns * p].
    fn unpatchify(&self, tokens: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
        let (b, p, c) = (tokens.dim(0)?, self.config.patch, self.config.out_channels);
        let x = tokens.reshape(&[b, rows, columns, p, p, c])?;
        x.permute([0, 5, 1, 3, 2, 4])?.reshape((b, c, rows * p, columns * p))
    }
}

impl DiffusionNetwork for Mmdit {
    fn forward(&self, input: &NetworkInput, options: &ForwardOptions) -> Result<Tensor> {
        let (_, _, height, width) = input.x.dims4()?;
        let Some(y) = &input.y else {
            bail!("this network needs a vector condition of width {}", self.config.pooled_width)
        };
        let (mut x, rows, columns) = self.embeddings.image(&input.x)?;
        let c = self.embeddings.condition(&input.timesteps, y)?;
        let mut context = Some(self.embeddings.text(input)?);

        let residuals = input.control.as_ref().map_or(&[][..], |control| &control.output);
        for (i, block) in self.joint_blocks.iter().enumerate() {
            let Some(text) = context.take() else { bail!("the text stream ends before block {i}") };
            if options.skipped.double.contains(&i) {
                context = Some(text);
            } else {
                (context, x) = block.forward(text, x, &c, self.config.heads)?;
            }
            if let Some(Some(residual)) = residuals.get(i) {
                x = x.broadcast_add(residual)?;
            }
        }

        let parts = self.final_modulation.forward(&c)?;
        let x = self.final_norm.forward_modulated(&x, &parts[0], &parts[1])?;
        let x = self.unpatchify(&self.final_linear.forward(&x)?, rows, columns)?;
        x.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
    }
}
