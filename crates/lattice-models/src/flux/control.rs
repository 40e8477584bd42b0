//! Control networks of Flux: the first blocks of a copy, whose results are added to the blocks of the base network.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Embedding, Linear};
use lattice_weights::StateDict;

use super::block::{DoubleBlock, SingleBlock};
use super::config::FluxConfig;
use super::network::{Embeddings, double_blocks, grid, patchify, rope, single_blocks};
use crate::diffusers;
use crate::error::ModelError;
use crate::hint_encoder;
use crate::layers::ScopeExt;
use crate::network::{Control, NetworkInput};

/// Double blocks of the published base network.
const DOUBLE_BLOCKS: usize = 19;
/// Single blocks.
const SINGLE_BLOCKS: usize = 38;

/// A ControlNet for Flux, of the kind of InstantX (hints are latents) or of XLabs (hints are pictures).
#[derive(Debug)]
pub struct FluxControl {
    config: FluxConfig,
    embeddings: Embeddings,
    double_blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    /// What makes residuals of the blocks' results.
    double_out: Vec<Linear>,
    single_out: Vec<Linear>,
    hint: Hint,
    /// One token for each kind of hint (union networks).
    modes: Option<(Embedding, usize)>,
}

/// How hints are read.
#[derive(Debug)]
enum Hint {
    /// Patches of a latent, of that many channels.
    Latent(Linear, usize),
    /// A picture in -1..1 through convolutions, then patches of their result.
    Picture(Vec<Conv2d>, Linear),
}

impl FluxControl {
    /// Builds the network from a file that is known to be one of this kind.
    ///
    /// # Errors
    /// If it is broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let picture = root.has("input_hint_block.0.weight");
        let converted;
        let network = if root.has("double_blocks.0.img_attn.norm.key_norm.scale") {
            dict
        } else {
            converted = diffusers::flux(diffusers::names(dict)).apply(dict)?;
            &converted
        };
        let scope = network.root();
        let config = FluxConfig::read(&scope)?;
        let hidden = config.hidden;
        let outputs = |name: &str, count: usize| -> std::result::Result<Vec<Linear>, ModelError> {
            (0..count).map(|i| root.at(name).at(i).linear(hidden, hidden)).collect()
        };
        let hint = if picture {
            let (convs, channels) = hint_encoder::load(&root.at("input_hint_block"))?;
            Hint::Picture(convs, root.at("pos_embed_input").linear(4 * channels, hidden)?)
        } else {
            let embedder = root.at("controlnet_x_embedder");
            let values = embedder.shape("weight", 2)?[1];
            Hint::Latent(embedder.linear(values, hidden)?, values / 4)
        };
        let modes = root.at("controlnet_mode_embedder");
        let modes = if modes.has("weight") {
            let count = modes.shape("weight", 2)?[0];
            Some((modes.embedding(count, hidden)?, count))
        } else {
            None
        };
        Ok(Self {
            embeddings: Embeddings::new(&scope, &config)?,
            double_blocks: double_blocks(&scope, &config)?,
            single_blocks: single_blocks(&scope, &config)?,
            double_out: outputs("controlnet_blocks", config.depth)?,
            single_out: outputs("controlnet_single_blocks", config.depth_single)?,
            hint,
            modes,
            config,
        })
    }

    /// Whether hints are latents; else they are pictures.
    pub fn reads_latents(&self) -> bool {
        matches!(self.hint, Hint::Latent(..))
    }

    /// How many kinds of hint it tells apart, if any.
    pub fn kinds(&self) -> Option<usize> {
        self.modes.as_ref().map(|(_, count)| *count)
    }

    /// What the network reads of a hint: a latent [B, C, H, W] in the network's scale, or a picture [B, 3, 8 H, 8 W] in 0..1.
    /// Tokens [B, L, width], the same at every step.
    pub fn read_hint(&self, hint: &Tensor) -> Result<Tensor> {
        match &self.hint {
            Hint::Latent(embedder, channels) => {
                let found = hint.dim(1)?;
                if found != *channels {
                    bail!("this ControlNet reads hints of {channels} channels, not {found}")
                }
                embedder.forward(&patchify(hint)?)
            }
            Hint::Picture(convs, embedder) => {
                let features = hint_encoder::forward(convs, &hint.affine(2.0, -1.0)?)?;
                embedder.forward(&patchify(&features)?)
            }
        }
    }

    /// Residuals at strength 1: `input` for the double and `output` for the single blocks of the base network. `hint` is what
    /// [`Self::read_hint`] made, `kinds` says what kind of hint it is.
    pub fn forward(&self, input: &NetworkInput, hint: &Tensor, kinds: &[usize]) -> Result<Control> {
        let (_, channels, height, width) = input.x.dims4()?;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this ControlNet needs {}", self.config.in_channels)
        }
        let mut txt = self.embeddings.text(input)?;
        if let (Some((modes, count)), Some(&kind)) = (&self.modes, kinds.first()) {
            if kind >= *count {
                bail!("this ControlNet knows {count} kinds of hint, not number {kind}")
            }
            let (batch, _, hidden) = txt.dims3()?;
            let token = modes.forward(&[kind as u32], txt.device())?;
            let token = token.reshape((1, 1, hidden))?.broadcast_as((batch, 1, hidden))?;
            txt = Tensor::cat(&[token.contiguous()?, txt], 1)?;
        }
        let text_length = txt.dim(1)?;
        let mut positions = vec![[0.0; 3]; text_length];
        positions.extend(grid(height, width).positions());
        let rope = rope(&positions, &self.config, input.x.device())?;
        let vec = self.embeddings.condition(input)?;
        let mut img = self.embeddings.image(&patchify(&input.x)?)?.broadcast_add(hint)?;
        let heads = self.config.heads;
        let mut double = Vec::with_capacity(self.double_blocks.len());
        for (block, out) in self.double_blocks.iter().zip(&self.double_out) {
            (img, txt) = block.forward(&img, &txt, &vec, &rope, heads)?;
            double.push(out.forward(&img)?);
        }
        let mut single = Vec::with_capacity(self.single_blocks.len());
        let mut x = Tensor::cat(&[txt, img], 1)?;
        for (block, out) in self.single_blocks.iter().zip(&self.single_out) {
            x = block.forward(&x, &vec, &rope, heads)?;
            single.push(out.forward(&x.narrow(1, text_length, x.dim(1)? - text_length)?.contiguous()?)?);
        }
        let input = match self.hint {
            Hint::Picture(..) => cycled(&double, DOUBLE_BLOCKS),
            Hint::Latent(..) => repeated(&double, DOUBLE_BLOCKS),
        };
        Ok(Control { input, middle: Vec::new(), output: repeated(&single, SINGLE_BLOCKS) })
    }
}

/// Each residual so many times in a row that all of a base network's blocks get one.
fn repeated(residuals: &[Tensor], blocks: usize) -> Vec<Option<Tensor>> {
    let times = blocks.div_ceil(residuals.len().max(1));
    residuals.iter().flat_map(|r| std::iter::repeat_n(Some(r.clone()), times)).take(blocks).collect()
}

/// The residuals in turn.
fn cycled(residuals: &[Tensor], blocks: usize) -> Vec<Option<Tensor>> {
    residuals.iter().cycle().take(if residuals.is_empty() { 0 } else { blocks }).cloned().map(Some).collect()
}
