//! GLIGEN (Li et al. 2023, arXiv 2301.07093): texts in boxes, to which every transformer of a U-Net attends between its
//! self- and its cross-attention.

use candle_core::{DType, Device, Result, Tensor, bail};
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_weights::{Scope, StateDict, Weight};

use super::config::Heads;
use super::transformer::{CrossAttention, FeedForward};
use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;

/// Boxes that the layers were trained with; a picture with fewer is filled up with learned blanks.
const OBJECTS: usize = 30;
/// Frequencies by which the edges of a box are embedded.
const FREQUENCIES: usize = 8;
/// They rise from 1 to nearly this.
const TEMPERATURE: f64 = 100.0;
/// Heads of the gated attentions; no tensor tells.
const HEADS: usize = 8;

/// Far more than a U-Net has on one of its ways.
const MOST_BLOCKS: usize = 64;

/// A text and where it belongs.
#[derive(Clone, Debug)]
pub struct BoxedText {
    /// Pooled text before its projection, [1, width].
    pub text: Tensor,
    /// Left, upper, right and lower edge in shares of the picture.
    pub edges: [f64; 4],
}

/// The layers of a GLIGEN file.
#[derive(Debug)]
pub struct Gligen {
    null_text: Weight,
    null_edges: Weight,
    linears: [Linear; 3],
    fusers: Vec<Fuser>,
}

/// What a call of a U-Net is grounded on.
#[derive(Clone, Debug)]
pub struct Grounding {
    /// The layers.
    pub layers: std::sync::Arc<Gligen>,
    /// Embedded boxes, [1, objects, width].
    pub objects: Tensor,
}

impl Gligen {
    /// Recognises the layers in a file of their own.
    ///
    /// # Errors
    /// If they are not there, or of a kind that is not known.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let position = root.at("position_net");
        if !position.has("null_positive_feature") {
            return Err(root.invalid(
                "holds no GLIGEN of texts in boxes: `position_net.null_positive_feature` is missing",
            ));
        }
        let text = position.shape("null_positive_feature", 1)?[0];
        let edges = 4 * 2 * FREQUENCIES;
        let mut inputs = text + edges;
        let mut linears = Vec::with_capacity(3);
        for name in ["0", "2", "4"] {
            let layer = position.at("linears").at(name);
            let outputs = layer.shape("weight", 2)?[0];
            linears.push(layer.linear(inputs, outputs)?);
            inputs = outputs;
        }
        let Ok(linears) = <[Linear; 3]>::try_from(linears) else {
            return Err(root.invalid("the layers behind the boxes are incomplete"));
        };
        let mut fusers = Vec::new();
        for part in ["input_blocks", "output_blocks"] {
            if part == "output_blocks" {
                Self::add(&root.at("middle_block").at(1), inputs, &mut fusers)?;
            }
            let blocks = root.at(part);
            // Only blocks with transformers have layers, so their numbers have gaps.
            for i in 0..MOST_BLOCKS {
                Self::add(&blocks.at(i).at(1), inputs, &mut fusers)?;
            }
        }
        if fusers.is_empty() {
            return Err(root.invalid("holds no layers for transformers"));
        }
        Ok(Self {
            null_text: position.tensor("null_positive_feature", &[text])?,
            null_edges: position.tensor("null_position_feature", &[edges])?,
            linears,
            fusers,
        })
    }

    fn add(transformer: &Scope<'_>, objects: usize, fusers: &mut Vec<Fuser>) -> Built<()> {
        let blocks = transformer.at("transformer_blocks");
        for i in 0..blocks.count() {
            fusers.push(Fuser::new(&blocks.at(i).at("fuser"), objects)?);
        }
        Ok(())
    }

    /// How many transformer blocks it has layers for.
    pub fn depth(&self) -> usize {
        self.fusers.len()
    }

    /// Texts and their boxes as the layers read them, [1, 30, width].
    ///
    /// # Errors
    /// If there are more than 30, or texts of another encoder.
    pub fn objects(&self, boxes: &[BoxedText], device: &Device) -> Result<Tensor> {
        if boxes.len() > OBJECTS {
            bail!("{} boxes are more than the {OBJECTS} that GLIGEN knows", boxes.len())
        }
        let width = self.null_text.elem_count();
        let null = |weight: &Weight| weight.to_tensor(device)?.to_dtype(DType::F32)?.reshape((1, ()));
        let (null_text, null_edges) = (null(&self.null_text)?, null(&self.null_edges)?);
        let mut rows = Vec::with_capacity(OBJECTS);
        for BoxedText { text, edges } in boxes {
            let found = text.dim(1)?;
            if found != width {
                bail!("the text of a box is {found} wide, these GLIGEN layers read texts {width} wide")
            }
            let edges = Tensor::from_vec(embedded(*edges), (1, null_edges.dim(1)?), device)?;
            rows.push(Tensor::cat(
                &[text.narrow(0, 0, 1)?.to_device(device)?.to_dtype(DType::F32)?, edges],
                1,
            )?);
        }
        let blank = Tensor::cat(&[null_text, null_edges], 1)?;
        rows.resize(OBJECTS, blank);
        let [first, second, third] = &self.linears;
        let h = first.forward(&Tensor::cat(&rows, 0)?)?.silu()?;
        let h = second.forward(&h)?.silu()?;
        third.forward(&h)?.unsqueeze(0)
    }

    /// Tokens x [B, L, C] of the `ordinal`-th transformer block of the network.
    pub(super) fn fuse(&self, ordinal: usize, x: &Tensor, objects: &Tensor) -> Result<Tensor> {
        match self.fusers.get(ordinal) {
            Some(fuser) => fuser.forward(x, objects),
            None => {
                bail!("these GLIGEN layers are for a network of {} transformer blocks", self.fusers.len())
            }
        }
    }
}

/// Sines and cosines of the four edges at each frequency.
fn embedded(edges: [f64; 4]) -> Vec<f32> {
    let mut out = Vec::with_capacity(edges.len() * 2 * FREQUENCIES);
    for i in 0..FREQUENCIES {
        let angles = edges.map(|e| e as f32 * TEMPERATURE.powf(i as f64 / FREQUENCIES as f64) as f32);
        out.extend(angles.map(f32::sin));
        out.extend(angles.map(f32::cos));
    }
    out
}

/// Gated attention of tokens to themselves and the objects, then a gated feed-forward layer.
#[derive(Debug)]
struct Fuser {
    linear: Linear,
    attn: CrossAttention,
    ff: FeedForward,
    norm1: LayerNorm,
    norm2: LayerNorm,
    gate_attn: f64,
    gate_dense: f64,
}

impl Fuser {
    fn new(scope: &Scope<'_>, objects: usize) -> Built<Self> {
        let width = scope.shape("linear.weight", 2)?[0];
        let gate = |name: &str| -> Built<f64> {
            match scope.weight(name)?.to_f32().as_slice() {
                [alpha] => Ok(f64::from(*alpha).tanh()),
                _ => Err(scope.invalid(format!("`{}` is no single number", scope.full_name(name)))),
            }
        };
        Ok(Self {
            linear: scope.at("linear").linear(objects, width)?,
            attn: CrossAttention::new(&scope.at("attn"), width, width, Heads::Count(HEADS))?,
            ff: FeedForward::new(&scope.at("ff"), width)?,
            norm1: scope.at("norm1").layer_norm(width, 1e-5)?,
            norm2: scope.at("norm2").layer_norm(width, 1e-5)?,
            gate_attn: gate("alpha_attn")?,
            gate_dense: gate("alpha_dense")?,
        })
    }

    fn forward(&self, x: &Tensor, objects: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let objects = self.linear.forward(objects)?;
        if objects.dim(2)? != width {
            bail!("these GLIGEN layers are for another network: {} wide, not {width}", objects.dim(2)?)
        }
        let objects = objects.broadcast_as((batch, objects.dim(1)?, width))?.contiguous()?;
        let h = self.norm1.forward(&Tensor::cat(&[x, &objects], 1)?)?;
        // Only the picture's tokens are asked for; objects are looked at.
        let queries = h.narrow(1, 0, length)?.contiguous()?;
        let x = (x + (self.attn.forward(&queries, &h, &h)? * self.gate_attn)?)?;
        &x + (self.ff.forward(&self.norm2.forward(&x)?)? * self.gate_dense)?
    }
}
