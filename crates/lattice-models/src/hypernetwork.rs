//! Hypernetworks: small networks that change what attentions take for keys and values (the `.pt` files of NovelAI's kind).

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use lattice_kernels::Activation;
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::{Scope, StateDict};

use crate::ModelError;
use crate::error::Built;
use crate::layers::ScopeExt;

/// Changes of keys' and values' inputs, by their width.
#[derive(Debug)]
pub struct Hypernetwork(BTreeMap<usize, [Sequence; 2]>);

impl Hypernetwork {
    /// Recognises a hypernetwork: below each width two sequences of layers, for keys and for values.
    ///
    /// # Errors
    /// If there is none, or its activation is not known.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let text = |name: &str| dict.metadata().get(name).map(|v| v.to_lowercase());
        let is_on = |name: &str| text(name).is_some_and(|v| v == "true" || v == "1");
        let activation = match text("activation_func").as_deref() {
            None | Some("linear" | "identity" | "none") => Nonlinearity::Kernel(Activation::None),
            Some("relu") => Nonlinearity::Kernel(Activation::Relu),
            Some("swish" | "silu") => Nonlinearity::Kernel(Activation::Silu),
            Some("gelu") => Nonlinearity::Kernel(Activation::Gelu),
            Some("tanh") => Nonlinearity::Kernel(Activation::Tanh),
            Some("sigmoid") => Nonlinearity::Kernel(Activation::Sigmoid),
            Some("leakyrelu") => Nonlinearity::LeakyRelu,
            Some("elu") => Nonlinearity::Elu,
            Some("hardswish") => Nonlinearity::HardSwish,
            Some("softsign") => Nonlinearity::Softsign,
            Some(other) => {
                return Err(
                    root.invalid(format!("is a hypernetwork of activation {other}, which is not known"))
                );
            }
        };
        let mut widths = BTreeMap::new();
        let names = dict.iter().filter_map(|(name, _)| name.split('.').next()?.parse::<usize>().ok());
        let found: std::collections::BTreeSet<usize> = names.collect();
        for width in found {
            let at = root.at(width);
            let sequence =
                |part: usize| Sequence::new(&at.at(part), width, activation, is_on("activate_output"));
            widths.insert(width, [sequence(0)?, sequence(1)?]);
        }
        if widths.is_empty() {
            return Err(root.invalid("holds no hypernetwork: there are no layers below a width"));
        }
        Ok(Self(widths))
    }

    /// Keys' and values' inputs, both [B, L, width], with the changes added.
    pub fn apply(&self, keys: &Tensor, values: &Tensor, strength: f64) -> Result<(Tensor, Tensor)> {
        let changed = |part: usize, t: &Tensor| match self.0.get(&t.dim(2)?) {
            Some(sequences) => t + (sequences[part].forward(t)? * strength)?,
            None => Ok(t.clone()),
        };
        Ok((changed(0, keys)?, changed(1, values)?))
    }
}

/// What stands behind linear layers.
#[derive(Clone, Copy, Debug)]
enum Nonlinearity {
    Kernel(Activation),
    LeakyRelu,
    Elu,
    HardSwish,
    Softsign,
}

impl Nonlinearity {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kernel(Activation::None) => Ok(x.clone()),
            Self::Kernel(activation) => ops::activation(x, activation),
            Self::LeakyRelu => x.maximum(&(x * 0.01)?),
            Self::Elu => x.elu(1.0),
            Self::HardSwish => x * ((x + 3.0)?.clamp(0f32, 6f32)? / 6.0)?,
            Self::Softsign => x / (x.abs()? + 1.0)?,
        }
    }
}

#[derive(Debug)]
enum Layer {
    Linear(Linear),
    Norm(LayerNorm),
}

/// Layers one after the other.
#[derive(Debug)]
struct Sequence {
    layers: Vec<Layer>,
    activation: Nonlinearity,
    activate_output: bool,
}

impl Sequence {
    /// `linear.N` below `scope`; what has no parameters takes numbers too, so there are gaps. Early files number two layers
    /// `linear1` and `linear2`.
    fn new(scope: &Scope<'_>, width: usize, activation: Nonlinearity, activate_output: bool) -> Built<Self> {
        /// Far beyond any real file.
        const MOST_LAYERS: usize = 256;
        let early = ["linear1", "linear2"].into_iter().map(|name| scope.at(name));
        let numbered = (0..MOST_LAYERS).map(|i| scope.at("linear").at(i));
        let mut layers = Vec::new();
        let mut channels = width;
        for layer in early.chain(numbered).filter(|layer| layer.has("weight")) {
            let dims = layer.weight("weight")?.dims().to_vec();
            if let [outputs, _] = dims[..] {
                layers.push(Layer::Linear(layer.linear(channels, outputs)?));
                channels = outputs;
            } else {
                layers.push(Layer::Norm(layer.layer_norm(channels, 1e-5)?));
            }
        }
        if layers.is_empty() || channels != width {
            let name = scope.full_name("linear.0.weight");
            return Err(scope
                .invalid(format!("`{name}`: the layers do not lead from {width} values back to {width}")));
        }
        Ok(Self { layers, activation, activate_output })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let last = self.layers.iter().rposition(|layer| matches!(layer, Layer::Linear(_)));
        let mut h = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            h = match layer {
                Layer::Norm(norm) => norm.forward(&h)?,
                Layer::Linear(linear) if Some(i) == last && !self.activate_output => linear.forward(&h)?,
                Layer::Linear(linear) => self.activation.apply(&linear.forward(&h)?)?,
            };
        }
        Ok(h)
    }
}
