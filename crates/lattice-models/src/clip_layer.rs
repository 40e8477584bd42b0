//! The transformer layer of CLIP's text and vision towers, under Hugging Face names.

use candle_core::{Result, Tensor};
use lattice_kernels::Activation;
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::Scope;

use crate::Hints;
use crate::error::Built;
use crate::layers::ScopeExt;

/// Of all layer norms.
pub(crate) const EPS: f64 = 1e-5;

/// Activation of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipActivation {
    /// x * sigmoid(1.702 x), the original's.
    QuickGelu,
    /// Exact GELU, OpenCLIP's.
    Gelu,
    /// GELU with the tanh approximation, SigLIP's.
    GeluTanh,
}

impl ClipActivation {
    /// The one that the metadata names.
    pub(crate) fn hinted(hints: &Hints) -> Option<Self> {
        match hints.text("hidden_act") {
            Some("quick_gelu") => Some(Self::QuickGelu),
            Some("gelu") => Some(Self::Gelu),
            Some("gelu_pytorch_tanh") => Some(Self::GeluTanh),
            _ => None,
        }
    }

    fn function(self) -> Activation {
        match self {
            Self::QuickGelu => Activation::QuickGelu,
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
        }
    }
}

/// Self-attention and feed-forward, each on a layer norm and added back.
#[derive(Debug)]
pub(crate) struct ClipLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipLayer {
    pub(crate) fn new(scope: &Scope<'_>, width: usize) -> Built<Self> {
        let (attention, mlp) = (scope.at("self_attn"), scope.at("mlp"));
        let inner = mlp.shape("fc1.weight", 2)?[0];
        Ok(Self {
            layer_norm1: scope.at("layer_norm1").layer_norm(width, EPS)?,
            q_proj: attention.at("q_proj").linear(width, width)?,
            k_proj: attention.at("k_proj").linear(width, width)?,
            v_proj: attention.at("v_proj").linear(width, width)?,
            out_proj: attention.at("out_proj").linear(width, width)?,
            layer_norm2: scope.at("layer_norm2").layer_norm(width, EPS)?,
            fc1: mlp.at("fc1").linear(width, inner)?,
            fc2: mlp.at("fc2").linear(inner, width)?,
        })
    }

    /// x [B, L, C]; `causal` hides later tokens.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        heads: usize,
        activation: ClipActivation,
        causal: bool,
    ) -> Result<Tensor> {
        let h = self.layer_norm1.forward(&x)?;
        let (q, k, v) = (self.q_proj.forward(&h)?, self.k_proj.forward(&h)?, self.v_proj.forward(&h)?);
        drop(h);
        let scale = 1.0 / ((q.dim(2)? / heads) as f32).sqrt();
        let a = ops::attention(&q, &k, &v, heads, scale, None, causal)?;
        let x = self.out_proj.forward_residual(&a, &x)?;
        let h = self.fc1.forward_activation(&self.layer_norm2.forward(&x)?, activation.function())?;
        self.fc2.forward_residual(&h, &x)
    }
}
