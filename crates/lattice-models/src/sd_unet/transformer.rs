//! Transformers over the cells of a feature map, with cross-attention to the text.

use candle_core::{D, Result, Tensor};
use lattice_kernels::Activation;
use lattice_kernels::nn::{GroupNorm, LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::Scope;

use super::config::{Heads, UnetConfig};
use super::gligen::Grounding;
use super::merging::Merging;
use super::place::Place;
use super::tiles::Cut;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::options::{AttentionWatch, ForwardOptions, MiddleAttention};

/// Multi-head attention; keys and values come from `context` (Vaswani et al. 2017).
#[derive(Debug)]
pub(super) struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    scale: f32,
}

impl CrossAttention {
    pub(super) fn new(scope: &Scope<'_>, width: usize, context: usize, heads: Heads) -> Built<Self> {
        // The inner width is the model's own in every published file, but the file may say otherwise.
        let inner = scope.shape("to_q.weight", 2)?[0];
        let heads = match heads {
            Heads::Count(count) => count,
            Heads::Width(head_width) => inner / head_width.max(1),
        };
        if heads == 0 || !inner.is_multiple_of(heads) {
            let name = scope.full_name("to_q.weight");
            return Err(scope.invalid(format!("`{name}`: {inner} rows do not make {heads} heads")));
        }
        Ok(Self {
            to_q: scope.at("to_q").linear_no_bias(width, inner)?,
            to_k: scope.at("to_k").linear_no_bias(context, inner)?,
            to_v: scope.at("to_v").linear_no_bias(context, inner)?,
            to_out: scope.at("to_out").at(0).linear(inner, width)?,
            heads,
            scale: 1.0 / ((inner / heads) as f32).sqrt(),
        })
    }

    /// Keys and values are made of tokens of their own, usually the same.
    pub(super) fn forward(&self, x: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let q = self.to_q.forward(x)?;
        let k = self.to_k.forward(keys)?;
        let v = self.to_v.forward(values)?;
        let a = ops::attention(&q, &k, &v, self.heads, self.scale, None, false)?;
        self.to_out.forward(&a)
    }

    /// The same with keys and values changed as the options say.
    fn attend(&self, x: &Tensor, context: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        let (mut keys, mut values) = (context.clone(), context.clone());
        for (hypernetwork, strength) in &options.hypernetworks {
            (keys, values) = hypernetwork.apply(&keys, &values, *strength)?;
        }
        self.forward(x, &keys, &values)
    }

    /// Every token attends to itself alone.
    fn forward_identity(&self, x: &Tensor) -> Result<Tensor> {
        self.to_out.forward(&self.to_v.forward(x)?)
    }

    /// The attention that each token of x [B, L, C] gets from all of them, mean over heads, [B, L].
    fn received(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, _) = x.dims3()?;
        let split =
            |t: Tensor| t.reshape((batch, length, self.heads, ()))?.permute((2, 0, 1, 3))?.contiguous();
        let (q, k) = (split(self.to_q.forward(x)?)?, split(self.to_k.forward(x)?)?);
        let mut received = Tensor::zeros((batch, length), x.dtype(), x.device())?;
        // One head at a time: the scores of all would take as much memory as the rest of the network.
        for head in 0..self.heads {
            let scores = (q.get(head)?.matmul(&k.get(head)?.t()?.contiguous()?)? * f64::from(self.scale))?;
            let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            received = (received + e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.sum(1)?)?;
        }
        received / self.heads as f64
    }
}

/// GEGLU feed-forward (Shazeer 2020).
#[derive(Debug)]
pub(super) struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    pub(super) fn new(scope: &Scope<'_>, width: usize) -> Built<Self> {
        let net = scope.at("net");
        let inner = net.shape("2.weight", 2)?[1];
        Ok(Self {
            proj: net.at(0).at("proj").linear(width, 2 * inner)?,
            out: net.at(2).linear(inner, width)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.proj.forward_gated(x, Activation::Gelu)?)
    }

    /// [`Self::forward`] plus `residual`.
    fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.out.forward_residual(&self.proj.forward_gated(x, Activation::Gelu)?, residual)
    }
}

/// Self-attention, cross-attention and feed-forward, each on a layer norm and added back.
#[derive(Debug)]
struct BasicTransformerBlock {
    attn1: CrossAttention,
    attn2: CrossAttention,
    ff: FeedForward,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
    /// Its number among those of the network.
    ordinal: usize,
}

impl BasicTransformerBlock {
    fn new(scope: &Scope<'_>, width: usize, context: usize, heads: Heads) -> Built<Self> {
        let norm = |name| scope.at(name).layer_norm(width, 1e-5);
        Ok(Self {
            attn1: CrossAttention::new(&scope.at("attn1"), width, width, heads)?,
            attn2: CrossAttention::new(&scope.at("attn2"), width, context, heads)?,
            ff: FeedForward::new(&scope.at("ff"), width)?,
            norm1: norm("norm1")?,
            norm2: norm("norm2")?,
            norm3: norm("norm3")?,
            ordinal: 0,
        })
    }

    fn forward(
        &self,
        x: Tensor,
        context: &Tensor,
        place: &Place<'_>,
        attention: &MiddleAttention,
    ) -> Result<Tensor> {
        let h = self.norm1.forward(&x)?;
        let mut x = ops::add_to(self.self_attention(&h, place, attention)?, &x)?;
        if let Some(Grounding { layers, objects }) = place.grounding {
            x = layers.fuse(self.ordinal, &x, objects)?;
        }
        let h = self.norm2.forward(&x)?;
        let x = ops::add_to(self.attn2.attend(&h, context, place.options)?, &x)?;
        let h = self.norm3.forward(&x)?;
        self.ff.forward_residual(&h, &x)
    }
}

impl BasicTransformerBlock {
    /// Self-attention, as it was trained or as it is asked for.
    fn self_attention(&self, h: &Tensor, place: &Place<'_>, attention: &MiddleAttention) -> Result<Tensor> {
        match attention {
            MiddleAttention::Identity => return self.attn1.forward_identity(h),
            MiddleAttention::Watched(watch) => self.watch(h, place, watch)?,
            MiddleAttention::Usual => {}
        }
        if let Some(cut) = place.options.hyper_tile.as_ref().and_then(|tiles| Cut::choose(tiles, place)) {
            let tiles = cut.split(h)?;
            return cut.join(&self.attn1.attend(&tiles, &tiles, place.options)?);
        }
        let merging = match place.options.token_merging {
            Some(options) => Merging::choose(options, place, h)?,
            None => None,
        };
        match merging {
            Some(merging) => {
                let tokens = merging.merge(h)?;
                merging.unmerge(&self.attn1.attend(&tokens, &tokens, place.options)?)
            }
            None => self.attn1.attend(h, h, place.options),
        }
    }

    fn watch(&self, h: &Tensor, place: &Place<'_>, watch: &AttentionWatch) -> Result<()> {
        let received = self.attn1.received(h)?;
        watch.put(received.reshape((h.dim(0)?, 1, place.height, place.width))?);
        Ok(())
    }
}

/// A transformer whose tokens are the cells of a feature map.
#[derive(Debug)]
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(super) fn new(scope: &Scope<'_>, channels: usize, config: &UnetConfig) -> Built<Self> {
        let width = scope.weight("proj_in.weight")?.dims().first().copied().unwrap_or(0);
        let blocks = scope.at("transformer_blocks");
        let context = config.context_width.unwrap_or(width);
        Ok(Self {
            norm: scope.at("norm").group_norm(channels, 32, 1e-6)?,
            // A 1x1 convolution is this linear map too, so both kinds of file share the code.
            proj_in: scope.at("proj_in").pointwise(channels, width)?,
            transformer_blocks: (0..blocks.count())
                .map(|i| BasicTransformerBlock::new(&blocks.at(i), width, context, config.heads))
                .collect::<Built<_>>()?,
            proj_out: scope.at("proj_out").pointwise(width, channels)?,
        })
    }

    /// Numbers its blocks from `next` on.
    pub(super) fn number(&mut self, next: &mut usize) {
        for block in &mut self.transformer_blocks {
            block.ordinal = *next;
            *next += 1;
        }
    }

    /// x [B, C, H, W], context [B, tokens, width].
    pub(super) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        place: &Place<'_>,
        attention: &MiddleAttention,
    ) -> Result<Tensor> {
        let tokens = ops::to_tokens(&self.norm.forward(x)?)?;
        let mut h = self.proj_in.forward(&tokens)?;
        drop(tokens);
        for (i, block) in self.transformer_blocks.iter().enumerate() {
            let attention = match attention {
                // The first block is the one that is watched.
                MiddleAttention::Watched(_) if i > 0 => &MiddleAttention::Usual,
                attention => attention,
            };
            h = block.forward(h, context, place, attention)?;
        }
        ops::add_tokens(x, &self.proj_out.forward(&h)?)
    }
}
