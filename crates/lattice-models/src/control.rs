//! Control networks of any kind: what makes residuals for a diffusion network from a hint picture.

use candle_core::{Result, Tensor};
use indexmap::IndexMap;
use lattice_weights::{StateDict, Weight};

use crate::ModelError;
use crate::error::Built;
use crate::flux::FluxControl;
use crate::layers::ScopeExt;
use crate::network::{Control, NetworkInput};
use crate::sd_unet::ControlNet;
use crate::sd3::{PictureChange, Sd3Control, Sd35Control};
use crate::t2i_adapter::T2iAdapter;

/// Pixels of a hint for one cell of a latent.
const PIXELS_PER_CELL: usize = 8;

/// A marker of files whose tensors are differences to a base model.
const DIFFERENCE: &str = "difference";
/// A marker of files that hold low-rank differences to a base model.
const CONTROL_LORA: &str = "lora_controlnet";

/// A control network.
#[derive(Debug)]
pub enum ControlNetwork {
    /// A copy of the U-Net's way down that reads the noisy latent too.
    ControlNet(Box<ControlNet>),
    /// A network that reads the hint alone.
    T2iAdapter(T2iAdapter),
    /// Some blocks of a Stable Diffusion 3.
    Sd3(Box<Sd3Control>),
    /// Blocks for a Stable Diffusion 3.5.
    Sd35(Box<Sd35Control>),
    /// Some blocks of a Flux.
    Flux(Box<FluxControl>),
    /// A file that becomes one of the others with the weights of the network that it is used on.
    WithoutBase(StateDict),
}

/// What a control network has read of a hint. The same at every step.
#[derive(Clone, Debug)]
pub enum ReadHint {
    /// Features that a network adds to its first block.
    Guide(Tensor),
    /// The residuals themselves.
    Residuals(Control),
}

/// Hints that are latents: `(latent - shift) * scale` in the VAE's latents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentHint {
    /// Factor.
    pub scale: f64,
    /// What is taken away before.
    pub shift: f64,
    /// Whether a mask stands behind the latent's channels.
    pub mask: bool,
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
    /// If it is none that is known, holds differences to a base model, or is broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        if root.has(DIFFERENCE) {
            return Err(root.invalid("holds differences to a base model, which has to be given"));
        }
        let has = |name: &str| root.has(name);
        if has(CONTROL_LORA) {
            return Ok(Self::WithoutBase(dict.clone()));
        }
        if has("controlnet_blocks.0.linear.weight") {
            return Err(root.invalid("is a ControlNet of MistoLine's kind for Flux, which is not supported"));
        }
        if has("controlnet_blocks.0.weight") {
            return Self::load_transformer(dict);
        }
        if has("adapter.body.0.resnets.0.block1.weight")
            || has("body.0.in_conv.weight")
            || (has("conv_in.weight") && has("body.0.block1.weight"))
        {
            return T2iAdapter::load(dict).map(Self::T2iAdapter);
        }
        ControlNet::load(dict).map(|network| Self::ControlNet(Box::new(network)))
    }

    fn load_transformer(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let root = dict.root();
        let has = |name: &str| root.has(name);
        if has("double_blocks.0.img_attn.norm.key_norm.scale") || has("controlnet_x_embedder.weight") {
            return FluxControl::load(dict).map(|network| Self::Flux(Box::new(network)));
        }
        if !has("pos_embed_input.proj.weight") {
            return Err(root.invalid("is a ControlNet of a transformer that is not known"));
        }
        if !has("transformer_blocks.0.adaLN_modulation.1.bias") {
            return Sd3Control::load(dict).map(|network| Self::Sd3(Box::new(network)));
        }
        if Sd35Control::needs_base(&root) {
            return Ok(Self::WithoutBase(dict.clone()));
        }
        Sd35Control::load(dict, None).map(|network| Self::Sd35(Box::new(network)))
    }

    /// As [`Self::load`]; tensors of a file of differences are added to those of the network that it was made from, whose
    /// weights stand in `base` without prefix.
    ///
    /// # Errors
    /// As [`Self::load`], or if the two do not fit together.
    pub fn load_with_base(dict: &StateDict, base: &StateDict) -> std::result::Result<Self, ModelError> {
        if dict.contains(DIFFERENCE) {
            let mut sums = dict.clone();
            sums.remove(DIFFERENCE);
            for (name, difference) in dict.iter().filter(|(name, _)| *name != DIFFERENCE) {
                let inner = name.strip_prefix("control_model.").unwrap_or(name);
                if let Some(weight) = base.get(inner) {
                    sums.insert(name, sum(dict, name, difference, weight)?);
                }
            }
            return Self::load(&sums);
        }
        match Self::load(dict)? {
            Self::WithoutBase(dict) => Self::over(&dict, base),
            network => Ok(network),
        }
    }

    /// The network with the weights of the one it is used on, without prefix; None if it does without.
    ///
    /// # Errors
    /// If the two do not fit together.
    pub fn on_base(&self, base: &StateDict) -> std::result::Result<Option<Self>, ModelError> {
        match self {
            Self::WithoutBase(dict) => Self::over(dict, base).map(Some),
            _ => Ok(None),
        }
    }

    fn over(dict: &StateDict, base: &StateDict) -> std::result::Result<Self, ModelError> {
        if dict.contains(CONTROL_LORA) {
            let network = ControlNet::load(&low_rank_sums(dict, base)?)?;
            return Ok(Self::ControlNet(Box::new(network)));
        }
        Sd35Control::load(dict, Some(base)).map(|network| Self::Sd35(Box::new(network)))
    }

    /// How hints are made of a picture's latent, for networks that read latents. Others read pixels.
    pub fn latent_hint(&self) -> Option<LatentHint> {
        // Those of Stable Diffusion 3 were trained without the shift.
        let sd3 = |mask| Some(LatentHint { scale: 1.5305, shift: 0.0, mask });
        match self {
            Self::Sd3(network) => sd3(network.reads_mask()),
            Self::Sd35(_) => sd3(false),
            Self::Flux(network) if network.reads_latents() => {
                Some(LatentHint { scale: 0.3611, shift: 0.1159, mask: false })
            }
            _ => None,
        }
    }

    /// Whether a mask stands behind a hint's latent.
    pub fn reads_mask(&self) -> bool {
        self.latent_hint().is_some_and(|hint| hint.mask)
    }

    /// A picture [B, 3, H, W] in 0..1 as it is before it is read, or encoded.
    pub fn prepared(&self, picture: &Tensor) -> Result<Tensor> {
        match self {
            Self::Sd35(network) => match network.change() {
                PictureChange::None => Ok(picture.clone()),
                PictureChange::Edges => picture.affine(255.0 * 0.5, 0.5),
                PictureChange::Depth => picture.affine(-1.0, 1.0),
            },
            _ => Ok(picture.clone()),
        }
    }

    /// (height, width) in pixels of the hint for a latent of that many cells.
    pub fn hint_size(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height * PIXELS_PER_CELL, width * PIXELS_PER_CELL)
    }

    /// How many kinds of hint the network tells apart, if any.
    pub fn kinds(&self) -> Option<usize> {
        match self {
            Self::ControlNet(network) => network.kinds(),
            Self::Flux(network) => network.kinds(),
            _ => None,
        }
    }

    /// Reads a hint of one of those kinds: [B, 3, H, W] in 0..1 of [`Self::hint_size`], or a latent of the noisy one's size, scaled as
    /// [`Self::latent_hint`] says. Networks for sketches read the mean of its colours.
    pub fn read_hint(&self, hint: &Tensor, kinds: &[usize]) -> Result<ReadHint> {
        match self {
            Self::ControlNet(network) => network.read_hint(hint, kinds).map(ReadHint::Guide),
            Self::Sd3(network) => network.read_hint(hint).map(ReadHint::Guide),
            Self::Sd35(network) => network.read_hint(hint).map(ReadHint::Guide),
            Self::Flux(network) => network.read_hint(hint).map(ReadHint::Guide),
            Self::T2iAdapter(network) if network.hint_channels() == 1 => {
                network.forward(&hint.mean_keepdim(1)?).map(ReadHint::Residuals)
            }
            Self::T2iAdapter(network) => network.forward(hint).map(ReadHint::Residuals),
            Self::WithoutBase(_) => Err(without_base()),
        }
    }

    /// Residuals at strength 1 for a call of the base network; `hint` has as many items as the call.
    pub fn residuals(&self, input: &NetworkInput, hint: &ReadHint, kinds: &[usize]) -> Result<Control> {
        match (self, hint) {
            (_, ReadHint::Residuals(control)) => Ok(control.clone()),
            (Self::ControlNet(network), ReadHint::Guide(guide)) => network.forward(input, guide, kinds),
            (Self::Sd3(network), ReadHint::Guide(guide)) => network.forward(input, guide),
            (Self::Sd35(network), ReadHint::Guide(guide)) => network.forward(input, guide),
            (Self::Flux(network), ReadHint::Guide(guide)) => network.forward(input, guide, kinds),
            (Self::T2iAdapter(_), ReadHint::Guide(_)) => {
                candle_core::bail!("the hint was read by a network of another kind")
            }
            (Self::WithoutBase(_), _) => Err(without_base()),
        }
    }
}

fn without_base() -> candle_core::Error {
    candle_core::Error::Msg("this control network needs the weights of the one it is used on".into())
}

/// Checks that a tensor changes one of its own shape.
fn same_shape(dict: &StateDict, name: &str, found: &[usize], base: &[usize]) -> Built<()> {
    if found == base {
        return Ok(());
    }
    Err(dict.root().invalid(format!(
        "`{name}` has shape {found:?}, that of the base model {base:?}: it was made from another one"
    )))
}

fn sum(dict: &StateDict, name: &str, difference: &Weight, weight: &Weight) -> Built<Weight> {
    same_shape(dict, name, difference.dims(), weight.dims())?;
    let values = difference.to_f32().into_iter().zip(weight.to_f32()).map(|(d, w)| d + w).collect();
    Ok(Weight::from_f32(values, difference.shape().clone())?)
}

/// The ControlNet of a file of low-rank differences: the base's way down with the products of `up` and `down` added, and what the
/// file has whole.
fn low_rank_sums(dict: &StateDict, base: &StateDict) -> Built<StateDict> {
    const COPIED: [&str; 4] = ["time_embed.", "label_emb.", "input_blocks.", "middle_block."];
    let mut tensors: IndexMap<String, Weight> = base
        .iter()
        .filter(|(name, _)| COPIED.iter().any(|part| name.starts_with(part)))
        .map(|(name, weight)| (name.to_owned(), weight.clone()))
        .collect();
    for (name, weight) in dict.iter().filter(|(name, _)| *name != CONTROL_LORA) {
        let Some(layer) = name.strip_suffix(".up") else {
            if name.strip_suffix(".down").is_none() {
                tensors.insert(name.to_owned(), weight.clone());
            }
            continue;
        };
        let target = format!("{layer}.weight");
        let down = dict.root().weight(&format!("{layer}.down"))?;
        let own = base.root().weight(&target)?;
        tensors.insert(target, low_rank_sum(dict, name, weight, &down, &own)?);
    }
    Ok(StateDict::new(dict.source(), tensors, base.metadata().clone()))
}

fn low_rank_sum(dict: &StateDict, name: &str, up: &Weight, down: &Weight, own: &Weight) -> Built<Weight> {
    let rows = |w: &Weight| w.dims().first().copied().unwrap_or(0);
    let (outputs, rank) = (rows(up), rows(down));
    let width = down.elem_count() / rank.max(1);
    let flat = own.elem_count() / rows(own).max(1);
    same_shape(dict, name, &[outputs, up.elem_count(), width], &[rows(own), outputs * rank, flat])?;
    let device = candle_core::Device::Cpu;
    let matrix = |w: &Weight, shape: (usize, usize)| Tensor::from_vec(w.to_f32(), shape, &device);
    let product = matrix(up, (outputs, rank))?.matmul(&matrix(down, (rank, width))?)?;
    let sum = (matrix(own, (outputs, width))? + product)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(Weight::from_f32(sum, own.shape().clone())?)
}
