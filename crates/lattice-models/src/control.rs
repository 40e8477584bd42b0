//! Control networks of any kind: what makes residuals for a U-Net from a hint picture.

use candle_core::{Result, Tensor};
use lattice_weights::{StateDict, Weight};

use crate::ModelError;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::{Control, NetworkInput};
use crate::sd_unet::ControlNet;
use crate::t2i_adapter::T2iAdapter;

/// Pixels of a hint for one cell of a latent.
const PIXELS_PER_CELL: usize = 8;

/// A marker of files whose tensors are differences to a base model.
const DIFFERENCE: &str = "difference";

/// A control network.
#[derive(Debug)]
pub enum ControlNetwork {
    /// A copy of the U-Net's way down that reads the noisy latent too.
    ControlNet(Box<ControlNet>),
    /// A network that reads the hint alone.
    T2iAdapter(T2iAdapter),
}

/// What a control network has read of a hint. The same at every step.
#[derive(Clone, Debug)]
pub enum ReadHint {
    /// Features that a [`ControlNet`] adds to its first block.
    Guide(Tensor),
    /// The residuals themselves.
    Residuals(Control),
}

impl ReadHint {
    /// With every tensor changed.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(match self {
            Self::Guide(guide) => Self::Guide(change(guide)?),
            Self::Residuals(control) => Self::Residuals(control.map(change)?),
        })
    }
}

impl ControlNetwork {
    /// Recognises a control network.
    ///
    /// # Errors
    /// If it is none that is known, needs a base model, or is broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        if root.has(DIFFERENCE) {
            return Err(root.invalid("holds differences to a base model, which has to be given"));
        }
        let has = |name: &str| root.has(name);
        if has("lora_controlnet") {
            return Err(root.invalid("is a ControlLoRA, which is not supported yet"));
        }
        if has("controlnet_blocks.0.weight") || has("controlnet_blocks.0.linear.weight") {
            return Err(root.invalid("is a ControlNet of a transformer, which are not supported yet"));
        }
        if has("adapter.body.0.resnets.0.block1.weight")
            || has("body.0.in_conv.weight")
            || (has("conv_in.weight") && has("body.0.block1.weight"))
        {
            return T2iAdapter::load(dict).map(Self::T2iAdapter);
        }
        ControlNet::load(dict).map(|network| Self::ControlNet(Box::new(network)))
    }

    /// As [`Self::load`]; tensors of a file of differences are added to those of the U-Net that it was made from, whose
    /// weights stand in `base` without prefix.
    ///
    /// # Errors
    /// As [`Self::load`], or if the two do not fit together.
    pub fn load_with_base(dict: &StateDict, base: &StateDict) -> std::result::Result<Self, ModelError> {
        if !dict.contains(DIFFERENCE) {
            return Self::load(dict);
        }
        let mut sums = dict.clone();
        sums.remove(DIFFERENCE);
        for (name, difference) in dict.iter().filter(|(name, _)| *name != DIFFERENCE) {
            let inner = name.strip_prefix("control_model.").unwrap_or(name);
            if let Some(weight) = base.get(inner) {
                sums.insert(name, sum(dict, name, difference, weight)?);
            }
        }
        Self::load(&sums)
    }

    /// (height, width) in pixels of the hint for a latent of that many cells.
    pub fn hint_size(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height * PIXELS_PER_CELL, width * PIXELS_PER_CELL)
    }

    /// Reads a hint [B, 3, H, W] in 0..1 of [`Self::hint_size`]. Networks for sketches read the mean of its colours.
    pub fn read_hint(&self, hint: &Tensor) -> Result<ReadHint> {
        match self {
            Self::ControlNet(network) => network.read_hint(hint).map(ReadHint::Guide),
            Self::T2iAdapter(network) if network.hint_channels() == 1 => {
                network.forward(&hint.mean_keepdim(1)?).map(ReadHint::Residuals)
            }
            Self::T2iAdapter(network) => network.forward(hint).map(ReadHint::Residuals),
        }
    }

    /// Residuals at strength 1 for a call of the U-Net; `hint` has as many items as the call.
    pub fn residuals(&self, input: &NetworkInput, hint: &ReadHint) -> Result<Control> {
        match (self, hint) {
            (Self::ControlNet(network), ReadHint::Guide(guide)) => network.forward(input, guide),
            (_, ReadHint::Residuals(control)) => Ok(control.clone()),
            (Self::T2iAdapter(_), ReadHint::Guide(_)) => {
                candle_core::bail!("the hint was read by a network of another kind")
            }
        }
    }
}

fn sum(dict: &StateDict, name: &str, difference: &Weight, weight: &Weight) -> Built<Weight> {
    if difference.dims() != weight.dims() {
        return Err(dict.root().invalid(format!(
            "`{name}` has shape {:?}, that of the base model {:?}: it was made from another one",
            difference.dims(),
            weight.dims()
        )));
    }
    let values = difference.to_f32().into_iter().zip(weight.to_f32()).map(|(d, w)| d + w).collect();
    Ok(Weight::from_f32(values, difference.shape().clone())?)
}
