//! What ControlNets for several kinds of hint have beside others (ControlNet++, xinsir 2024).

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::{Scope, Weight};

use super::condition::Mlp;
use crate::embedding::timestep_embedding;
use crate::error::Built;
use crate::layers::ScopeExt;

/// Width of one embedded entry of the vector that says which kinds of hint there are.
const KIND_WIDTH: usize = 256;

/// Embeddings of kinds, and what makes features of hints follow them.
#[derive(Debug)]
pub(super) struct Union {
    task_embedding: Weight,
    layers: Vec<Layer>,
    spatial_ch_projs: Linear,
    control_add_embedding: Mlp,
}

impl Union {
    /// The layers below `scope`, if a union ControlNet stands there. `width` is that of the hint's features, `embedding` that of the
    /// time embedding.
    pub(super) fn new(scope: &Scope<'_>, width: usize, embedding: usize) -> Built<Option<Self>> {
        if !scope.has("task_embedding") {
            return Ok(None);
        }
        let kinds = scope.shape("task_embedding", 2)?[0];
        // The published files have this spelling.
        let layers = scope.at("transformer_layes");
        let added = scope.at("control_add_embedding");
        let control_add_embedding = Mlp::named(&added, ["linear_1", "linear_2"], kinds * KIND_WIDTH)?;
        if control_add_embedding.out_features() != embedding {
            let name = added.full_name("linear_2.weight");
            return Err(
                scope.invalid(format!("`{name}` does not fit the time embedding's width {embedding}"))
            );
        }
        Ok(Some(Self {
            task_embedding: scope.tensor("task_embedding", &[kinds, width])?,
            layers: (0..layers.count()).map(|i| Layer::new(&layers.at(i), width)).collect::<Built<_>>()?,
            spatial_ch_projs: scope.at("spatial_ch_projs").linear(width, width)?,
            control_add_embedding,
        }))
    }

    /// How many kinds of hint it tells apart.
    pub(super) fn kinds(&self) -> usize {
        self.task_embedding.dims()[0]
    }

    fn check(&self, kinds: &[usize]) -> Result<()> {
        match kinds.iter().find(|&&kind| kind >= self.kinds()) {
            Some(kind) => bail!("this ControlNet knows {} kinds of hint, not number {kind}", self.kinds()),
            None => Ok(()),
        }
    }

    /// Features of a hint [B, C, H, W] as they are for its first kind; without one as they are.
    pub(super) fn follow(&self, features: &Tensor, kinds: &[usize]) -> Result<Tensor> {
        self.check(kinds)?;
        let Some(&kind) = kinds.first() else { return Ok(features.clone()) };
        let (_, width, ..) = features.dims4()?;
        let mut task = vec![0f32; width];
        self.task_embedding.read_f32(kind * width, &mut task);
        let task = Tensor::from_vec(task, (1, width), features.device())?;
        let mut h = features.mean((2, 3))?.broadcast_add(&task)?;
        for layer in &self.layers {
            h = layer.forward(&h)?;
        }
        let change = self.spatial_ch_projs.forward(&h)?;
        features.broadcast_add(&change.unsqueeze(2)?.unsqueeze(3)?)
    }

    /// What the kinds add to the time embedding, [1, E].
    pub(super) fn embedding(&self, kinds: &[usize], device: &candle_core::Device) -> Result<Tensor> {
        self.check(kinds)?;
        let which = (0..self.kinds()).map(|kind| f32::from(u8::from(kinds.contains(&kind))));
        let which = Tensor::from_vec(which.collect::<Vec<_>>(), self.kinds(), device)?;
        self.control_add_embedding
            .forward(&timestep_embedding(&which, KIND_WIDTH)?.flatten_all()?.unsqueeze(0)?)
    }
}

/// A block of attention and feed-forward over the hints of a call. There is one hint, so attention yields its value.
#[derive(Debug)]
struct Layer {
    value: Linear,
    out_proj: Linear,
    ln_1: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    ln_2: LayerNorm,
}

impl Layer {
    fn new(scope: &Scope<'_>, width: usize) -> Built<Self> {
        let (attn, mlp) = (scope.at("attn"), scope.at("mlp"));
        let weight = attn.tensor("in_proj_weight", &[3 * width, width])?.narrow_rows(2 * width, width)?;
        let bias = attn.tensor("in_proj_bias", &[3 * width])?.narrow_rows(2 * width, width)?;
        let inner = mlp.shape("c_fc.weight", 2)?[0];
        Ok(Self {
            value: Linear::new(weight, Some(bias))?,
            out_proj: attn.at("out_proj").linear(width, width)?,
            ln_1: scope.at("ln_1").layer_norm(width, 1e-5)?,
            c_fc: mlp.at("c_fc").linear(width, inner)?,
            c_proj: mlp.at("c_proj").linear(inner, width)?,
            ln_2: scope.at("ln_2").layer_norm(width, 1e-5)?,
        })
    }

    /// x [B, C].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.out_proj.forward(&self.value.forward(&self.ln_1.forward(x)?)?)?)?;
        &x + self.c_proj.forward(&ops::quick_gelu(&self.c_fc.forward(&self.ln_2.forward(&x)?)?)?)?
    }
}
