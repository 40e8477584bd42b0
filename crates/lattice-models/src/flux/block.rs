//! Double and single blocks.

use candle_core::{Result, Tensor};
use lattice_kernels::Activation;
use lattice_kernels::nn::{LayerNorm, Linear, RmsNorm};
use lattice_kernels::ops;
use lattice_weights::Scope;

use super::config::FluxConfig;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::rope::Rope;
use crate::transformer::{Mlp, Modulation, Qkv, joint_attention, plain_norm};

const EPS: f64 = 1e-6;

fn qk_norms(scope: &Scope<'_>, config: &FluxConfig) -> Built<Option<(RmsNorm, RmsNorm)>> {
    let head = config.hidden / config.heads;
    let norm = |name| scope.at(name).rms_norm("scale", head, EPS);
    Ok(Some((norm("query_norm")?, norm("key_norm")?)))
}

/// Attention with rotated queries and keys.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rope: &Rope, heads: usize) -> Result<Tensor> {
    let (q, k) = (rope.rotate_neighbours(q, heads)?, rope.rotate_neighbours(k, heads)?);
    let scale = 1.0 / ((q.dim(2)? / heads) as f32).sqrt();
    ops::attention(&q, &k, v, heads, scale, None, false)
}

/// One stream of a double block: modulation, attention and feed-forward of text or image tokens.
#[derive(Debug)]
struct Stream {
    norm: LayerNorm,
    modulation: Modulation,
    qkv: Qkv,
    proj: Linear,
    mlp: Mlp,
}

impl Stream {
    fn new(scope: &Scope<'_>, stream: &str, config: &FluxConfig) -> Built<Self> {
        let (width, attention) = (config.hidden, scope.at(format!("{stream}_attn")));
        let norms = qk_norms(&attention.at("norm"), config)?;
        Ok(Self {
            norm: plain_norm(EPS),
            modulation: Modulation::new(&scope.at(format!("{stream}_mod")).at("lin"), width, 6)?,
            qkv: Qkv::new(&attention.at("qkv"), width, config.heads, norms)?,
            proj: attention.at("proj").linear(width, width)?,
            mlp: Mlp::new(&scope.at(format!("{stream}_mlp")), ["0", "2"], width)?,
        })
    }

    fn qkv(&self, x: &Tensor, parts: &[Tensor]) -> Result<[Tensor; 3]> {
        self.qkv.forward(&self.norm.forward_modulated(x, &parts[0], &parts[1])?)
    }

    fn finish(&self, x: &Tensor, attended: &Tensor, parts: &[Tensor]) -> Result<Tensor> {
        let x = ops::add_gated(x, &parts[2], self.proj.forward(attended)?)?;
        let m = self.mlp.forward(&self.norm.forward_modulated(&x, &parts[3], &parts[4])?)?;
        ops::add_gated(&x, &parts[5], m)
    }
}

/// Text and image tokens with weights of their own, attending to each other.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    img: Stream,
    txt: Stream,
}

impl DoubleBlock {
    pub(super) fn new(scope: &Scope<'_>, config: &FluxConfig) -> Built<Self> {
        Ok(Self { img: Stream::new(scope, "img", config)?, txt: Stream::new(scope, "txt", config)? })
    }

    /// Image and text tokens [B, L, C]; `vec` [B, C] is the condition after SiLU.
    pub(super) fn forward(
        &self,
        img: &Tensor,
        txt: &Tensor,
        vec: &Tensor,
        rope: &Rope,
        heads: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (img_parts, txt_parts) = (self.img.modulation.forward(vec)?, self.txt.modulation.forward(vec)?);
        let (txt_qkv, img_qkv) = (self.txt.qkv(txt, &txt_parts)?, self.img.qkv(img, &img_parts)?);
        let (txt_a, img_a) = joint_attention(txt_qkv, img_qkv, |q, k, v| attention(q, k, v, rope, heads))?;
        Ok((self.img.finish(img, &img_a, &img_parts)?, self.txt.finish(txt, &txt_a, &txt_parts)?))
    }
}

/// All tokens in one stream, attention and feed-forward side by side.
#[derive(Debug)]
pub(super) struct SingleBlock {
    pre_norm: LayerNorm,
    modulation: Modulation,
    qkv: Qkv,
    mlp: Linear,
    linear2: Linear,
}

impl SingleBlock {
    pub(super) fn new(scope: &Scope<'_>, config: &FluxConfig) -> Built<Self> {
        let width = config.hidden;
        let mut parts = scope.at("linear1").linear_parts(width, &[width, width, width, config.mlp])?;
        let mlp = parts.pop().ok_or_else(|| scope.invalid("no feed-forward rows"))?;
        Ok(Self {
            pre_norm: plain_norm(EPS),
            modulation: Modulation::new(&scope.at("modulation").at("lin"), width, 3)?,
            qkv: Qkv::from_parts(parts, config.heads, qk_norms(&scope.at("norm"), config)?)?,
            mlp,
            linear2: scope.at("linear2").linear(width + config.mlp, width)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, vec: &Tensor, rope: &Rope, heads: usize) -> Result<Tensor> {
        let parts = self.modulation.forward(vec)?;
        let h = self.pre_norm.forward_modulated(x, &parts[0], &parts[1])?;
        let [q, k, v] = self.qkv.forward(&h)?;
        let a = attention(&q, &k, &v, rope, heads)?;
        drop((q, k, v));
        let m = self.mlp.forward_activation(&h, Activation::GeluTanh)?;
        drop(h);
        let out = self.linear2.forward(&Tensor::cat(&[a, m], 2)?)?;
        ops::add_gated(x, &parts[2], out)
    }
}
