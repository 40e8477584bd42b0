//! The network: down, middle, up.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, GroupNorm};
use lattice_weights::Scope;

use super::block::{Block, Condition};
use super::condition::Conditioner;
use super::config::UnetConfig;
use super::free_u;
use super::gligen::Grounding;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::{DiffusionNetwork, NetworkInput};
use crate::options::{Downscale, ForwardOptions, MiddleAttention};

/// U-Net of the Stable Diffusion families.
#[derive(Debug)]
pub struct UNet {
    config: UnetConfig,
    conditioner: Conditioner,
    input_blocks: Vec<Block>,
    middle_block: Block,
    output_blocks: Vec<Block>,
    out: (GroupNorm, Conv2d),
    transformer_blocks: usize,
}

impl UNet {
    /// Builds the network of that structure whose tensors stand below `scope`, without reading them.
    ///
    /// # Errors
    /// If tensors are missing or their shapes do not fit together.
    pub fn new(scope: &Scope<'_>, config: UnetConfig) -> Built<Self> {
        let conditioner = Conditioner::new(scope, &config)?;
        let emb_width = conditioner.width();

        let inputs = scope.at("input_blocks");
        let (mut channels, mut skips, mut input_blocks) = (config.in_channels, vec![], vec![]);
        for i in 0..inputs.count() {
            let (block, outputs) = Block::new(&inputs.at(i), channels, emb_width, &config)?;
            input_blocks.push(block);
            skips.push(outputs);
            channels = outputs;
        }
        let (mut middle_block, mut channels) =
            Block::new(&scope.at("middle_block"), channels, emb_width, &config)?;
        let outputs = scope.at("output_blocks");
        let mut output_blocks = vec![];
        for i in 0..outputs.count() {
            let Some(skip) = skips.pop() else {
                return Err(scope.invalid(format!("more output blocks than {i} input blocks")));
            };
            let (block, width) = Block::new(&outputs.at(i), channels + skip, emb_width, &config)?;
            output_blocks.push(block);
            channels = width;
        }
        if !skips.is_empty() {
            let name = outputs.full_name(outputs.count());
            return Err(scope.invalid(format!("blocks from `{name}` on are missing")));
        }
        let mut transformer_blocks = 0;
        for block in input_blocks.iter_mut().chain([&mut middle_block]).chain(&mut output_blocks) {
            block.number(&mut transformer_blocks);
        }
        let out = scope.at("out");
        let out = (
            out.at(0).group_norm(channels, 32, 1e-5)?,
            out.at(2).conv2d(channels, config.out_channels, 3, Conv2dConfig::padded(1))?,
        );
        Ok(Self { config, conditioner, input_blocks, middle_block, output_blocks, out, transformer_blocks })
    }

    /// The structure.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }
}

/// Adds the next residual of a list, if there is one for this place.
fn add_control(h: Tensor, list: &mut Vec<Option<Tensor>>) -> Result<Tensor> {
    match list.pop().flatten() {
        Some(residual) => {
            let ((_, width, ..), (_, own, ..)) = (h.dims4()?, residual.dims4()?);
            if own != width {
                bail!(
                    "the control network's residuals have {own} channels where this network has {width}; it is for another \
                     family of models"
                )
            }
            h.broadcast_add(&residual)
        }
        None => Ok(h),
    }
}

/// A feature map with its sides divided, at least one cell.
fn shrunk(h: &Tensor, down: &Downscale) -> Result<Tensor> {
    let side = |n: usize| ((n as f64 / down.factor).round_ties_even() as usize).max(1);
    down.down.apply(h, side(h.dim(2)?), side(h.dim(3)?))
}

/// A seed that is another one at every time, and the same in every run.
fn time_seed(timesteps: &Tensor) -> Result<u64> {
    let first = timesteps.flatten_all()?.get(0)?.to_dtype(candle_core::DType::F32)?.to_vec0::<f32>()?;
    Ok(u64::from(first.to_bits()))
}

impl DiffusionNetwork for UNet {
    fn forward(&self, input: &NetworkInput, options: &ForwardOptions) -> Result<Tensor> {
        let channels = input.x.dims4()?.1;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this network needs {}", self.config.in_channels)
        }
        if let (Some(width), Some(context)) = (self.config.context_width, &input.context)
            && context.dims3()?.2 != width
        {
            bail!("the encoded text is {} wide, this network needs {width}", context.dims3()?.2)
        }
        if let Some(Grounding { layers, .. }) = &input.grounding
            && layers.depth() != self.transformer_blocks
        {
            bail!(
                "the GLIGEN layers are for a network of {} transformer blocks, this one has {}",
                layers.depth(),
                self.transformer_blocks
            )
        }
        let emb = self.conditioner.forward(input)?;
        let condition = Condition {
            emb: &emb,
            context: input.context.as_ref(),
            latent: (input.x.dim(2)?, input.x.dim(3)?),
            seed: time_seed(&input.timesteps)?,
            options,
            attention: &MiddleAttention::Usual,
            grounding: input.grounding.as_ref(),
        };
        let mut control = input.control.clone().unwrap_or_default();

        let mut h = input.x.clone();
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        let smaller = |h: Tensor, block: usize, after_skip: bool| match &options.downscale {
            Some(down) if down.block == block && down.after_skip == after_skip => shrunk(&h, down),
            _ => Ok(h),
        };
        for (i, block) in self.input_blocks.iter().enumerate() {
            h = block.forward(h, &condition, None)?;
            h = add_control(h, &mut control.input)?;
            h = smaller(h, i, false)?;
            skips.push(h.clone());
            h = smaller(h, i, true)?;
        }
        let middle = Condition { attention: &options.middle_attention, ..condition };
        h = self.middle_block.forward(h, &middle, None)?;
        h = add_control(h, &mut control.middle)?;
        for block in &self.output_blocks {
            let Some(skip) = skips.pop() else { bail!("no skip left for an output block") };
            let mut skip = add_control(skip, &mut control.output)?;
            if let Some(down) = &options.downscale
                && h.dim(2)? != skip.dim(2)?
            {
                h = down.up.apply(&h, skip.dim(2)?, skip.dim(3)?)?;
            }
            for free_u in &options.free_u {
                let level = h.dim(1)? / self.config.model_channels.max(1);
                (h, skip) = free_u::reweight(free_u, level, &h, &skip)?;
            }
            h = Tensor::cat(&[h, skip], 1)?;
            let size = skips.last().map(|next| Ok::<_, candle_core::Error>((next.dim(2)?, next.dim(3)?)));
            h = block.forward(h, &condition, size.transpose()?)?;
        }
        let h = self.out.0.forward_silu(&h)?;
        self.out.1.forward(&h)
    }
}
