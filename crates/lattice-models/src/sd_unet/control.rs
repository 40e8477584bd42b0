//! ControlNet (Zhang et al. 2023): a copy of the U-Net's way down, whose results are added to the U-Net's skips.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_weights::{Scope, StateDict};

use super::block::{Block, Condition};
use super::condition::Conditioner;
use super::config::UnetConfig;
use super::union::Union;
use crate::Hints;
use crate::diffusers;
use crate::error::{Built, ModelError};
use crate::hint_encoder;
use crate::layers::ScopeExt;
use crate::network::{Control, NetworkInput};
use crate::options::{ForwardOptions, MiddleAttention};

/// A ControlNet for Stable Diffusion 1.x, 2.x or SDXL.
#[derive(Debug)]
pub struct ControlNet {
    config: UnetConfig,
    conditioner: Conditioner,
    input_hint_block: Vec<Conv2d>,
    input_blocks: Vec<Block>,
    zero_convs: Vec<Conv2d>,
    middle_block: Block,
    middle_block_out: Conv2d,
    union: Option<Union>,
}

impl ControlNet {
    /// Recognises a ControlNet under the names of the original (with or without `control_model.`) or of diffusers.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let (root, hints) = (dict.root(), Hints::of(dict).component("unet"));
        if root.has("controlnet_cond_embedding.conv_in.weight") {
            let converted = diffusers::controlnet(diffusers::names(dict)).apply(dict)?;
            let mut network = Self::new(&converted.root(), &hints)?;
            let (width, embedding) = (network.config.model_channels, network.conditioner.width());
            network.union = Union::new(&root, width, embedding)?;
            return Ok(network);
        }
        let inner = root.at("control_model");
        if inner.has("zero_convs.0.0.weight") {
            Self::new(&inner, &hints)
        } else if root.has("zero_convs.0.0.weight") {
            Self::new(&root, &hints)
        } else {
            Err(root.invalid("holds no known ControlNet: `zero_convs.0.0.weight` is missing"))
        }
    }

    fn new(scope: &Scope<'_>, hints: &Hints) -> Built<Self> {
        let config = UnetConfig::read(scope, hints)?;
        let conditioner = Conditioner::new(scope, &config)?;
        let hint = scope.at("input_hint_block");
        let (input_hint_block, channels) = hint_encoder::load(&hint)?;
        if channels != config.model_channels {
            let name = hint.full_name("14.weight");
            return Err(scope.invalid(format!(
                "`{name}`: {channels} channels cannot be added to {}",
                config.model_channels
            )));
        }
        let (inputs, zeros) = (scope.at("input_blocks"), scope.at("zero_convs"));
        let (mut channels, mut input_blocks, mut zero_convs) = (config.in_channels, vec![], vec![]);
        for i in 0..inputs.count() {
            let (block, outputs) = Block::new(&inputs.at(i), channels, conditioner.width(), &config)?;
            channels = outputs;
            input_blocks.push(block);
            zero_convs.push(zeros.at(i).at(0).conv2d(channels, channels, 1, Conv2dConfig::padded(0))?);
        }
        let (middle_block, channels) =
            Block::new(&scope.at("middle_block"), channels, conditioner.width(), &config)?;
        let out = scope.at("middle_block_out").at(0);
        Ok(Self {
            conditioner,
            input_hint_block,
            input_blocks,
            zero_convs,
            middle_block,
            middle_block_out: out.conv2d(channels, channels, 1, Conv2dConfig::padded(0))?,
            union: None,
            config,
        })
    }

    /// The structure of the copied half.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// How many kinds of hint it tells apart, if any.
    pub fn kinds(&self) -> Option<usize> {
        self.union.as_ref().map(Union::kinds)
    }

    /// What the network reads of a hint [B, 3, 8 H, 8 W] in 0..1 for latents of H by W cells: [B, width, H, W], the same at
    /// every step. `kinds` are the hint's, for networks that tell them apart.
    pub fn read_hint(&self, hint: &Tensor, kinds: &[usize]) -> Result<Tensor> {
        let guide = hint_encoder::forward(&self.input_hint_block, hint)?;
        match &self.union {
            Some(union) => union.follow(&guide, kinds),
            None => Ok(guide),
        }
    }

    /// Residuals at strength 1: `output` entry i for skip i, `middle` one entry. `guide` is what [`Self::read_hint`] made of a
    /// hint of the latent's size, of those kinds.
    pub fn forward(&self, input: &NetworkInput, guide: &Tensor, kinds: &[usize]) -> Result<Control> {
        let channels = input.x.dims4()?.1;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this ControlNet needs {}", self.config.in_channels)
        }
        if let (Some(width), Some(context)) = (self.config.context_width, &input.context)
            && context.dims3()?.2 != width
        {
            bail!(
                "the encoded text is {} wide, this ControlNet needs {width}; it is for another family of models",
                context.dims3()?.2
            )
        }
        let kinds = self.union.as_ref().map(|union| union.embedding(kinds, input.x.device())).transpose()?;
        let emb = self.conditioner.forward_with(input, kinds.as_ref())?;
        let options = ForwardOptions::default();
        let condition = Condition {
            emb: &emb,
            context: input.context.as_ref(),
            latent: (input.x.dim(2)?, input.x.dim(3)?),
            seed: 0,
            options: &options,
            attention: &MiddleAttention::Usual,
            grounding: None,
        };
        let mut guide = Some(guide);
        let mut h = input.x.clone();
        let mut output = vec![];
        for (block, zero_conv) in self.input_blocks.iter().zip(&self.zero_convs) {
            h = block.forward(h, &condition, None)?;
            if let Some(guide) = guide.take() {
                h = h.broadcast_add(guide)?;
            }
            output.push(Some(zero_conv.forward(&h)?));
        }
        h = self.middle_block.forward(h, &condition, None)?;
        Ok(Control { input: vec![], middle: vec![Some(self.middle_block_out.forward(&h)?)], output })
    }
}
