//! Joint blocks: a stream of text tokens and one of image tokens that attend to each other.

use candle_core::{Result, Tensor};
use lattice_kernels::nn::{LayerNorm, Linear, RmsNorm};
use lattice_kernels::ops;
use lattice_weights::Scope;

use super::config::MmditConfig;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::transformer::{Mlp, Modulation, Qkv, joint_attention, plain_norm};

const EPS: f64 = 1e-6;

/// The fused projections and the output of an attention.
#[derive(Debug)]
struct Attention {
    qkv: Qkv,
    proj: Option<Linear>,
}

impl Attention {
    fn new(scope: &Scope<'_>, config: &MmditConfig, last: bool) -> Built<Self> {
        let width = config.hidden;
        let norm =
            |name: &str| -> Built<RmsNorm> { scope.at(name).rms_norm("weight", width / config.heads, EPS) };
        let norms = if config.qk_norm { Some((norm("ln_q")?, norm("ln_k")?)) } else { None };
        Ok(Self {
            qkv: Qkv::new(&scope.at("qkv"), width, config.heads, norms)?,
            proj: if last { None } else { Some(scope.at("proj").linear(width, width)?) },
        })
    }
}

/// One stream of a block.
#[derive(Debug)]
struct Stream {
    norm: LayerNorm,
    attn: Attention,
    /// Self-attention of this stream alone, modulated by the last three of nine parts.
    attn2: Option<Attention>,
    mlp: Option<Mlp>,
    modulation: Modulation,
}

impl Stream {
    /// `last`: only query, key and value are needed, since the stream ends here.
    fn new(scope: &Scope<'_>, config: &MmditConfig, last: bool) -> Built<Self> {
        let attn2 = scope.at("attn2");
        let attn2 = if attn2.has("qkv.weight") { Some(Attention::new(&attn2, config, false)?) } else { None };
        let parts = match (last, &attn2) {
            (true, _) => 2,
            (false, None) => 6,
            (false, Some(_)) => 9,
        };
        Ok(Self {
            norm: plain_norm(EPS),
            attn: Attention::new(&scope.at("attn"), config, last)?,
            attn2,
            mlp: if last { None } else { Some(Mlp::new(&scope.at("mlp"), ["fc1", "fc2"], config.hidden)?) },
            modulation: Modulation::new(&scope.at("adaLN_modulation").at(1), config.hidden, parts)?,
        })
    }

    /// After the joint attention: projections, second attention and feed-forward, each gated and added.
    fn finish(
        &self,
        x: &Tensor,
        attended: &Tensor,
        parts: &[Tensor],
        heads: usize,
    ) -> Result<Option<Tensor>> {
        let (Some(proj), Some(mlp), [_, _, gate, shift_mlp, scale_mlp, gate_mlp, second @ ..]) =
            (&self.attn.proj, &self.mlp, parts)
        else {
            return Ok(None);
        };
        let mut h = ops::add_gated(x, gate, proj.forward(attended)?)?;
        if let (Some(Attention { qkv, proj: Some(proj) }), [shift, scale, gate]) = (&self.attn2, second) {
            let [q, k, v] = qkv.forward(&self.norm.forward_modulated(x, shift, scale)?)?;
            h = ops::add_gated(&h, gate, proj.forward(&attention(&q, &k, &v, heads)?)?)?;
        }
        let m = mlp.forward(&self.norm.forward_modulated(&h, shift_mlp, scale_mlp)?)?;
        Ok(Some(ops::add_gated(&h, gate_mlp, m)?))
    }

    fn qkv(&self, x: &Tensor, parts: &[Tensor]) -> Result<[Tensor; 3]> {
        self.attn.qkv.forward(&self.norm.forward_modulated(x, &parts[0], &parts[1])?)
    }
}

fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let scale = 1.0 / ((q.dim(2)? / heads) as f32).sqrt();
    ops::attention(q, k, v, heads, scale, None, false)
}

/// The stream of image tokens alone: a block of a control network without text.
#[derive(Debug)]
pub(super) struct ImageBlock(Stream);

impl ImageBlock {
    pub(super) fn new(scope: &Scope<'_>, config: &MmditConfig) -> Built<Self> {
        Stream::new(scope, config, false).map(Self)
    }

    /// Image tokens [B, L, C]; `c` [B, C] is the condition after SiLU.
    pub(super) fn forward(&self, x: &Tensor, c: &Tensor, heads: usize) -> Result<Tensor> {
        let parts = self.0.modulation.forward(c)?;
        let [q, k, v] = self.0.qkv(x, &parts)?;
        let attended = attention(&q, &k, &v, heads)?;
        Ok(self.0.finish(x, &attended, &parts, heads)?.unwrap_or(attended))
    }
}

/// A joint block.
#[derive(Debug)]
pub(super) struct JointBlock {
    context_block: Stream,
    x_block: Stream,
}

impl JointBlock {
    /// In the `last` block the text stream ends.
    pub(super) fn new(scope: &Scope<'_>, config: &MmditConfig, last: bool) -> Built<Self> {
        Ok(Self {
            context_block: Stream::new(&scope.at("context_block"), config, last)?,
            x_block: Stream::new(&scope.at("x_block"), config, false)?,
        })
    }

    /// Text and image tokens [B, L, C]; `c` [B, C] is the condition after SiLU. The text is absent after the last block.
    pub(super) fn forward(
        &self,
        context: Tensor,
        x: Tensor,
        c: &Tensor,
        heads: usize,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let context_parts = self.context_block.modulation.forward(c)?;
        let x_parts = self.x_block.modulation.forward(c)?;
        let context_qkv = self.context_block.qkv(&context, &context_parts)?;
        let x_qkv = self.x_block.qkv(&x, &x_parts)?;
        let (context_a, x_a) = joint_attention(context_qkv, x_qkv, |q, k, v| attention(q, k, v, heads))?;
        let context = self.context_block.finish(&context, &context_a, &context_parts, heads)?;
        let x = self.x_block.finish(&x, &x_a, &x_parts, heads)?.unwrap_or(x);
        Ok((context, x))
    }
}
