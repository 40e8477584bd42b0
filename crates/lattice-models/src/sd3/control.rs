//! Control networks of Stable Diffusion 3 and 3.5. Hints are latents in the network's scale.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Linear};
use lattice_weights::{Scope, StateDict};

use super::block::{ImageBlock, JointBlock};
use super::config::{HEAD_WIDTH, MmditConfig};
use super::mmdit::{Embeddings, patch_embedder, patches};
use crate::diffusers;
use crate::embedding::timestep_embedding;
use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;
use crate::network::{Control, NetworkInput};
use crate::transformer::Embedder;

/// What makes tokens of a hint.
#[derive(Debug)]
struct HintEmbedder {
    conv: Conv2d,
    channels: usize,
    patch: usize,
}

impl HintEmbedder {
    fn new(root: &Scope<'_>, hidden: usize) -> Built<Self> {
        let scope = root.at("pos_embed_input").at("proj");
        let shape = scope.shape("weight", 4)?;
        let (channels, patch) = (shape[1], shape[2]);
        Ok(Self { conv: patch_embedder(&scope, channels, hidden, patch)?, channels, patch })
    }

    fn forward(&self, hint: &Tensor) -> Result<Tensor> {
        let found = hint.dims4()?.1;
        if found != self.channels {
            bail!("this ControlNet reads hints of {} channels, not {found}", self.channels)
        }
        patches(&self.conv, hint, self.patch)?.0.contiguous()
    }
}

fn residual_layers(root: &Scope<'_>, count: usize, hidden: usize) -> Built<Vec<Linear>> {
    (0..count).map(|i| root.at("controlnet_blocks").at(i).linear(hidden, hidden)).collect()
}

/// A ControlNet for Stable Diffusion 3 in the diffusers layout: some joint blocks that read the text too.
#[derive(Debug)]
pub struct Sd3Control {
    embeddings: Embeddings,
    joint_blocks: Vec<JointBlock>,
    outputs: Vec<Linear>,
    hint: HintEmbedder,
    heads: usize,
    pooled_width: usize,
}

impl Sd3Control {
    /// Builds the network from a file that is known to be one of this kind.
    ///
    /// # Errors
    /// If it is broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let converted = diffusers::sd3(diffusers::names(dict)).apply(dict)?;
        let scope = converted.root();
        let config = MmditConfig::read(&scope)?;
        let blocks = scope.at("joint_blocks");
        let hint = HintEmbedder::new(&root, config.hidden)?;
        if hint.patch != config.patch {
            return Err(root.invalid("hints and latents have patches of different sizes"));
        }
        Ok(Self {
            embeddings: Embeddings::new(&scope, &config)?,
            joint_blocks: (0..config.depth)
                .map(|i| JointBlock::new(&blocks.at(i), &config, false))
                .collect::<Built<_>>()?,
            outputs: residual_layers(&root, config.depth, config.hidden)?,
            hint,
            heads: config.heads,
            pooled_width: config.pooled_width,
        })
    }

    /// Whether hints have a mask behind the latent's channels (inpainting).
    pub fn reads_mask(&self) -> bool {
        self.hint.channels % 2 == 1
    }

    /// What the network reads of a hint, [B, L, C], the same at every step.
    pub fn read_hint(&self, hint: &Tensor) -> Result<Tensor> {
        self.hint.forward(hint)
    }

    /// Residuals at strength 1: `output` for the joint blocks of the base network. Of the vector condition it sees only zeros, as in
    /// training.
    pub fn forward(&self, input: &NetworkInput, hint: &Tensor) -> Result<Control> {
        let (x, ..) = self.embeddings.image(&input.x)?;
        let mut x = x.broadcast_add(hint)?;
        let y = Tensor::zeros((1, self.pooled_width), x.dtype(), x.device())?;
        let c = self.embeddings.condition(&input.timesteps, &y)?;
        let mut context = Some(self.embeddings.text(input)?);
        // The base network is as deep as it has heads; its last block takes nothing.
        let times = self.heads / self.joint_blocks.len().max(1);
        let mut output = Vec::new();
        for (i, (block, layer)) in self.joint_blocks.iter().zip(&self.outputs).enumerate() {
            let Some(text) = context.take() else { bail!("the text stream ends before block {i}") };
            (context, x) = block.forward(text, x, &c, self.heads)?;
            let last = usize::from(i + 1 == self.joint_blocks.len());
            let residual = layer.forward(&x)?;
            output.extend(std::iter::repeat_n(Some(residual), times.saturating_sub(last)));
        }
        Ok(Control { input: Vec::new(), middle: Vec::new(), output })
    }
}

/// How the pictures of a [`Sd35Control`] are changed before they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureChange {
    /// Not at all.
    None,
    /// Edges are scaled as in training.
    Edges,
    /// Depth is turned around: what is near is dark.
    Depth,
}

/// A ControlNet for Stable Diffusion 3.5 by Stability AI: blocks of image tokens alone.
#[derive(Debug)]
pub struct Sd35Control {
    x_embedder: Conv2d,
    patch: usize,
    in_channels: usize,
    t_embedder: Embedder,
    time_width: usize,
    /// The base network's embedder of the vector condition, where this file's reads its result.
    base_y: Option<Embedder>,
    y_embedder: Embedder,
    blocks: Vec<ImageBlock>,
    outputs: Vec<Linear>,
    hint: HintEmbedder,
    heads: usize,
    change: PictureChange,
}

impl Sd35Control {
    /// Whether a file of this kind reads the vector condition through the base network's embedder.
    pub(crate) fn needs_base(root: &Scope<'_>) -> bool {
        let first = root.optional("time_text_embed.text_embedder.linear_1.weight");
        first.is_some_and(|w| w.dims().len() == 2 && w.dims()[0] == w.dims()[1])
    }

    /// Builds the network from a file that is known to be one of this kind; `base` are the weights of the network that it is for.
    ///
    /// # Errors
    /// If it is broken, or the two do not fit together.
    pub fn load(dict: &StateDict, base: Option<&StateDict>) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let shape = root.shape("pos_embed.proj.weight", 4)?;
        let (hidden, in_channels, patch) = (shape[0], shape[1], shape[2]);
        if !hidden.is_multiple_of(HEAD_WIDTH) {
            return Err(root.invalid(format!("{hidden} values do not make heads {HEAD_WIDTH} wide")));
        }
        let time_text = root.at("time_text_embed");
        let embedder = |name: &str| Embedder::new(&time_text.at(name), ["linear_1", "linear_2"], hidden);
        let base_y = match base {
            Some(base) if Self::needs_base(&root) => {
                let mlp = base.root().at("y_embedder").at("mlp");
                let outputs = mlp.at(2).shape("weight", 2)?[0];
                if outputs != hidden {
                    return Err(
                        root.invalid(format!("is for a network {hidden} wide, this one is {outputs} wide"))
                    );
                }
                Some(Embedder::new(&mlp, ["0", "2"], hidden)?)
            }
            _ => None,
        };
        let scope = root.at("transformer_blocks");
        let depth = scope.count();
        let config = MmditConfig {
            depth,
            hidden,
            heads: hidden / HEAD_WIDTH,
            patch,
            in_channels,
            out_channels: in_channels,
            pooled_width: hidden,
            context_width: hidden,
            position_side: 0,
            qk_norm: scope.at(0).has("attn.ln_q.weight"),
            second_attention: Vec::new(),
        };
        let kind = root.optional("control_type").map(|w| w.to_f32());
        Ok(Self {
            x_embedder: patch_embedder(&root.at("pos_embed").at("proj"), in_channels, hidden, patch)?,
            patch,
            in_channels,
            t_embedder: embedder("timestep_embedder")?,
            time_width: Embedder::input_width(&time_text.at("timestep_embedder"), "linear_1")?,
            base_y,
            y_embedder: embedder("text_embedder")?,
            blocks: (0..depth).map(|i| ImageBlock::new(&scope.at(i), &config)).collect::<Built<_>>()?,
            outputs: residual_layers(&root, depth, hidden)?,
            hint: HintEmbedder::new(&root, hidden)?,
            heads: config.heads,
            change: match kind.as_deref() {
                Some([kind]) if kind.round() == 1.0 => PictureChange::Edges,
                Some([kind]) if kind.round() == 2.0 => PictureChange::Depth,
                _ => PictureChange::None,
            },
        })
    }

    /// How its pictures are changed before they are encoded.
    pub fn change(&self) -> PictureChange {
        self.change
    }

    /// What the network reads of a hint, [B, L, C], the same at every step.
    pub fn read_hint(&self, hint: &Tensor) -> Result<Tensor> {
        self.hint.forward(hint)
    }

    /// Residuals at strength 1: `output` for the joint blocks of the base network, which is as deep as it has heads.
    pub fn forward(&self, input: &NetworkInput, hint: &Tensor) -> Result<Control> {
        let channels = input.x.dims4()?.1;
        if channels != self.in_channels {
            bail!("the latent has {channels} channels, this ControlNet needs {}", self.in_channels)
        }
        let (x, ..) = patches(&self.x_embedder, &input.x, self.patch)?;
        let mut x = x.broadcast_add(hint)?;
        let mut c = self.t_embedder.forward(&timestep_embedding(&input.timesteps, self.time_width)?)?;
        if let Some(y) = &input.y {
            let y = match &self.base_y {
                Some(embedder) => embedder.forward(y)?,
                None => y.clone(),
            };
            c = c.broadcast_add(&self.y_embedder.forward(&y)?)?;
        }
        let c = c.silu()?;
        let times = self.heads.div_ceil(self.blocks.len().max(1));
        let mut output = Vec::new();
        for (block, layer) in self.blocks.iter().zip(&self.outputs) {
            let out = block.forward(&x, &c, self.heads)?;
            output.extend(std::iter::repeat_n(Some(layer.forward(&out)?), times));
            // Networks beside the base's embedder have blocks in parallel, not in a row.
            if self.base_y.is_none() {
                x = out;
            }
        }
        output.truncate(self.heads);
        Ok(Control { input: Vec::new(), middle: Vec::new(), output })
    }
}
