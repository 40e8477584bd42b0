//! The network: down, middle, up.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use lattice_weights::Scope;

use super::block::{Block, Condition};
use super::config::UnetConfig;
use crate::embedding::timestep_embedding;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::{DiffusionNetwork, ForwardOptions, NetworkInput};

/// Two linear layers with SiLU between: `0` and `2` of a sequence.
#[derive(Debug)]
struct Mlp(Linear, Linear);

impl Mlp {
    fn new(scope: &Scope<'_>, inputs: usize) -> Built<Self> {
        let hidden = scope.shape("0.weight", 2)?[0];
        let outputs = scope.shape("2.weight", 2)?[0];
        Ok(Self(scope.at(0).linear(inputs, hidden)?, scope.at(2).linear(hidden, outputs)?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?.silu()?)
    }
}

/// U-Net of the Stable Diffusion families.
#[derive(Debug)]
pub struct UNet {
    config: UnetConfig,
    time_embed: Mlp,
    label_emb: Option<Mlp>,
    input_blocks: Vec<Block>,
    middle_block: Block,
    output_blocks: Vec<Block>,
    out: (GroupNorm, Conv2d),
}

impl UNet {
    /// Builds the network of that structure whose tensors stand below `scope`, without reading them.
    ///
    /// # Errors
    /// If tensors are missing or their shapes do not fit together.
    pub fn new(scope: &Scope<'_>, config: UnetConfig) -> Built<Self> {
        let time_embed = Mlp::new(&scope.at("time_embed"), config.model_channels)?;
        let emb_width = time_embed.1.out_features();
        let label_emb = match config.added_width {
            Some(width) => {
                let mlp = Mlp::new(&scope.at("label_emb").at(0), width)?;
                // Both embeddings are added, so their widths must agree.
                scope.tensor("label_emb.0.2.bias", &[emb_width])?;
                Some(mlp)
            }
            None => None,
        };

        let inputs = scope.at("input_blocks");
        let (mut channels, mut skips, mut input_blocks) = (config.in_channels, vec![], vec![]);
        for i in 0..inputs.count() {
            let (block, outputs) = Block::new(&inputs.at(i), channels, emb_width, &config)?;
            input_blocks.push(block);
            skips.push(outputs);
            channels = outputs;
        }
        let (middle_block, mut channels) =
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
        let out = scope.at("out");
        let out = (
            out.at(0).group_norm(channels, 32, 1e-5)?,
            out.at(2).conv2d(channels, config.out_channels, 3, Conv2dConfig::padded(1))?,
        );
        Ok(Self { config, time_embed, label_emb, input_blocks, middle_block, output_blocks, out })
    }

    /// The structure.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// Time embedding plus added condition, through the SiLU that all residual blocks begin with.
    fn embed(&self, input: &NetworkInput) -> Result<Tensor> {
        let mut emb =
            self.time_embed.forward(&timestep_embedding(&input.timesteps, self.config.model_channels)?)?;
        if let (Some(label_emb), Some(width)) = (&self.label_emb, self.config.added_width) {
            let Some(y) = &input.y else { bail!("this network needs a vector condition of width {width}") };
            if y.dim(1)? != width {
                bail!("the vector condition is {} wide, this network needs {width}", y.dim(1)?)
            }
            emb = (emb + label_emb.forward(y)?)?;
        }
        emb.silu()
    }
}

/// Adds the next residual of a list, if there is one for this place.
fn add_control(h: Tensor, list: &mut Vec<Option<Tensor>>) -> Result<Tensor> {
    match list.pop().flatten() {
        Some(residual) => h.broadcast_add(&residual),
        None => Ok(h),
    }
}

impl DiffusionNetwork for UNet {
    fn forward(&self, input: &NetworkInput, _options: &ForwardOptions) -> Result<Tensor> {
        let channels = input.x.dims4()?.1;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this network needs {}", self.config.in_channels)
        }
        if let (Some(width), Some(context)) = (self.config.context_width, &input.context)
            && context.dims3()?.2 != width
        {
            bail!("the encoded text is {} wide, this network needs {width}", context.dims3()?.2)
        }
        let emb = self.embed(input)?;
        let condition = Condition { emb: &emb, context: input.context.as_ref() };
        let mut control = input.control.clone().unwrap_or_default();

        let mut h = input.x.clone();
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        for block in &self.input_blocks {
            h = block.forward(h, &condition, None)?;
            h = add_control(h, &mut control.input)?;
            skips.push(h.clone());
        }
        h = self.middle_block.forward(h, &condition, None)?;
        h = add_control(h, &mut control.middle)?;
        for block in &self.output_blocks {
            let Some(skip) = skips.pop() else { bail!("no skip left for an output block") };
            let skip = add_control(skip, &mut control.output)?;
            h = Tensor::cat(&[h, skip], 1)?;
            let size = skips.last().map(|next| Ok::<_, candle_core::Error>((next.dim(2)?, next.dim(3)?)));
            h = block.forward(h, &condition, size.transpose()?)?;
        }
        let h = self.out.0.forward_silu(&h)?;
        self.out.1.forward(&h)
    }
}
