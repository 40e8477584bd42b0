//! Style models: pictures as further tokens of the text. Redux of Flux (Black Forest Labs 2024), and the style adapter of
//! T2I-Adapter (Mou et al. 2023).

use candle_core::{Result, Tensor, bail};
use indexmap::IndexMap;
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_weights::{StateDict, Weight};

use crate::Hints;
use crate::clip_layer::{ClipActivation, ClipLayer, EPS};
use crate::convert::transpose;
use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;
use crate::text::openclip_blocks;

/// Heads of the published adapter.
const HEADS: usize = 8;

/// A style model.
#[derive(Debug)]
pub struct StyleModel(Layout);

#[derive(Debug)]
enum Layout {
    Redux { up: Linear, down: Linear },
    Adapter(Box<StyleAdapter>),
}

/// Learned tokens that look at the picture's in a few transformer layers.
#[derive(Debug)]
struct StyleAdapter {
    width: usize,
    heads: usize,
    style_embedding: Weight,
    ln_pre: LayerNorm,
    layers: Vec<ClipLayer>,
    ln_post: LayerNorm,
    proj: Linear,
}

impl StyleModel {
    /// Recognises a style model.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        if root.has("style_embedding") {
            return StyleAdapter::new(dict).map(|adapter| Self(Layout::Adapter(Box::new(adapter))));
        }
        if !root.has("redux_down.weight") {
            return Err(
                root.invalid("holds no known style model: neither `style_embedding` nor `redux_down.weight`")
            );
        }
        let (up, down) = (root.at("redux_up"), root.at("redux_down"));
        let [wide, inputs] = up.shape("weight", 2)?[..] else {
            return Err(root.invalid("`redux_up.weight` is no matrix"));
        };
        let outputs = down.shape("weight", 2)?[0];
        Ok(Self(Layout::Redux { up: up.linear(inputs, wide)?, down: down.linear(wide, outputs)? }))
    }

    /// Tokens [B, tokens, text width] of the last states of a vision tower [B, n, width].
    pub fn forward(&self, states: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Layout::Redux { up, down } => down.forward(&up.forward(states)?.silu()?),
            Layout::Adapter(adapter) => adapter.forward(states),
        }
    }
}

impl StyleAdapter {
    fn new(dict: &StateDict) -> Built<Self> {
        let root = dict.root();
        let shape = root.shape("style_embedding", 3)?;
        let width = shape[2];
        let heads = Hints::of(dict).count("num_head").unwrap_or(HEADS);
        if shape[0] != 1 || heads == 0 || !width.is_multiple_of(heads) {
            return Err(
                root.invalid(format!("`style_embedding`: {shape:?} is no row of tokens for {heads} heads"))
            );
        }
        let mut renamed = IndexMap::new();
        // The published name has this spelling.
        openclip_blocks(&root.at("transformer_layes"), "style", |name, weight| {
            renamed.insert(name, weight);
        })?;
        let renamed = StateDict::new(dict.source(), renamed, dict.metadata().clone());
        let layers = renamed.root().at("style").at("encoder").at("layers");
        let proj = root.weight("proj")?;
        let outputs = root.shape("proj", 2)?[1];
        root.tensor("proj", &[width, outputs])?;
        Ok(Self {
            width,
            heads,
            style_embedding: root.weight("style_embedding")?,
            ln_pre: root.at("ln_pre").layer_norm(width, EPS)?,
            layers: (0..layers.count())
                .map(|i| ClipLayer::new(&layers.at(i), width))
                .collect::<Built<_>>()?,
            ln_post: root.at("ln_post").layer_norm(width, EPS)?,
            proj: Linear::new(transpose(&proj)?, None)?,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = states.dims3()?;
        if width != self.width {
            bail!("the picture's states are {width} wide, this style model needs {}", self.width)
        }
        let style = self.style_embedding.to_tensor(states.device())?;
        let tokens = style.dim(1)?;
        let style = style.broadcast_as((batch, tokens, width))?.contiguous()?;
        let mut h = self.ln_pre.forward(&Tensor::cat(&[states, &style], 1)?)?;
        for layer in &self.layers {
            h = layer.forward(h, self.heads, ClipActivation::QuickGelu, false)?;
        }
        let h = h.narrow(1, h.dim(1)? - tokens, tokens)?.contiguous()?;
        self.proj.forward(&self.ln_post.forward(&h)?)
    }
}
