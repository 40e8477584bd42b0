//! The model side of guidance: what turns a noisy latent and an entry's options into a denoised prediction.

mod added;
mod concat;
mod network;
mod reuse;
mod unclip;
mod windows;

use std::sync::Arc;

use candle_core::{Result, Tensor};

use lattice_models::ForwardOptions;
use lattice_models::network::ReferencePlacement;

use crate::ModelSampling;
use crate::conditioning::repeat_batch;
use crate::conditioning::{ActiveHook, ControlSource, Entry, GroundingHint};
use crate::latent_format::LatentFormat;

pub use network::{NetworkModel, WeightHooks};
pub use reuse::{Reuse, Sequence};
pub use windows::{Fuse, WindowSchedule, Windows};

/// Which list of a guider an entry stands in. Some families describe the two differently by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListRole {
    /// What to move towards.
    Positive,
    /// What to move away from.
    Negative,
}

/// What one sampling run works on.
#[derive(Clone, Debug)]
pub struct Run {
    /// Shape of the latent, [B, C, spatial...].
    pub shape: Vec<usize>,
    /// The latent to start from, scaled for the network; inpainting models see it.
    pub latent: Option<Tensor>,
    /// Where to denoise (1), [B or 1, 1, spatial...] or any size [n, 1, h, w].
    pub denoise_mask: Option<Tensor>,
    /// Seed of the run; what is drawn for a condition depends on it.
    pub seed: u64,
    /// Where tensors live.
    pub device: candle_core::Device,
}

impl Run {
    /// A run on an empty latent of this shape.
    pub fn new(shape: &[usize], device: &candle_core::Device) -> Self {
        Self { shape: shape.to_vec(), latent: None, denoise_mask: None, seed: 0, device: device.clone() }
    }

    /// Sizes of the spatial axes.
    pub fn spatial(&self) -> &[usize] {
        self.shape.get(2..).unwrap_or_default()
    }
}

/// An entry's tensors as a model takes them; batch axes may be 1 or anything that is repeated to the latent's batch.
#[derive(Clone, Debug, Default)]
pub struct ModelInputs {
    /// Text states, [n, tokens, width].
    pub context: Option<Tensor>,
    /// Which tokens count, [n, tokens].
    pub context_mask: Option<Tensor>,
    /// Vector condition, [n, width].
    pub y: Option<Tensor>,
    /// Distilled guidance, [n].
    pub guidance: Option<Tensor>,
    /// Channels joined to the noisy latent, [n, C', spatial...]; cut like the latent.
    pub concat: Option<Tensor>,
    /// Text states that control networks read instead, [n, tokens, width].
    pub control_context: Option<Tensor>,
    /// Vector condition that control networks read instead, [n, width].
    pub control_y: Option<Tensor>,
    /// Latents to look at, [n, C, h, w] each, scaled.
    pub references: Vec<Tensor>,
    /// How those are placed beside the picture.
    pub reference_placement: ReferencePlacement,
}

impl ModelInputs {
    fn tensors(&self) -> [Option<&Tensor>; 7] {
        [
            &self.context,
            &self.context_mask,
            &self.y,
            &self.guidance,
            &self.concat,
            &self.control_context,
            &self.control_y,
        ]
        .map(Option::as_ref)
    }

    /// Whether two entries fit into one call. Texts of different lengths do where a repeated text means the same
    /// (`repeatable`) and the repetition stays within four times the shorter one.
    pub(crate) fn is_compatible(&self, other: &Self, repeatable: bool) -> bool {
        let item = |t: Option<&Tensor>| t.map(|t| t.dims()[1..].to_vec());
        let same = |i: usize| item(self.tensors()[i]) == item(other.tensors()[i]);
        let texts_fit = match (&self.context, &other.context) {
            (Some(a), Some(b))
                if repeatable && self.context_mask.is_none() && other.context_mask.is_none() =>
            {
                let (a, b) = (a.dims(), b.dims());
                a.len() == 3 && b.len() == 3 && a[2] == b[2] && repeats(a[1], b[1])
            }
            _ => same(0),
        };
        let sizes = |inputs: &Self| -> Vec<Vec<usize>> {
            inputs.references.iter().map(|t| t.dims().get(1..).unwrap_or_default().to_vec()).collect()
        };
        let same_references =
            sizes(self) == sizes(other) && self.reference_placement == other.reference_placement;
        texts_fit && (1..7).all(same) && same_references
    }

    /// Every tensor at the latent's batch size.
    pub(crate) fn repeated(&self, batch: usize) -> Result<Self> {
        self.map(|t| repeat_batch(t, batch))
    }

    /// With every tensor changed.
    fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let changed = |t: &Option<Tensor>| t.as_ref().map(&change).transpose();
        Ok(Self {
            context: changed(&self.context)?,
            context_mask: changed(&self.context_mask)?,
            y: changed(&self.y)?,
            guidance: changed(&self.guidance)?,
            concat: changed(&self.concat)?,
            control_context: changed(&self.control_context)?,
            control_y: changed(&self.control_y)?,
            references: self.references.iter().map(&change).collect::<Result<_>>()?,
            reference_placement: self.reference_placement,
        })
    }

    /// One behind the other on the batch axis; texts are repeated to their least common length.
    pub(crate) fn join(all: &[Self]) -> Result<Self> {
        let join = |pick: fn(&Self) -> &Option<Tensor>| -> Result<Option<Tensor>> {
            let tensors: Vec<&Tensor> = all.iter().filter_map(|i| pick(i).as_ref()).collect();
            match tensors[..] {
                [] => Ok(None),
                [only] => Ok(Some(only.clone())),
                _ => Tensor::cat(&tensors, 0).map(Some),
            }
        };
        let lengths = all.iter().filter_map(|i| i.context.as_ref()).filter(|c| c.rank() == 3);
        let length = lengths.map(|c| c.dims()[1]).fold(1, least_common_multiple);
        let texts = all.iter().map(|inputs| match &inputs.context {
            Some(context) if context.rank() == 3 && (1..length).contains(&context.dims()[1]) => {
                let copies = vec![context; length / context.dims()[1]];
                Ok(Self { context: Some(Tensor::cat(&copies, 1)?), ..Self::default() })
            }
            context => Ok(Self { context: context.clone(), ..Self::default() }),
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let texts: Vec<&Tensor> = texts.iter().filter_map(|t| t.context.as_ref()).collect();
        Ok(Self {
            context: if texts.is_empty() { None } else { Some(Tensor::cat(&texts, 0)?) },
            context_mask: join(|i| &i.context_mask)?,
            y: join(|i| &i.y)?,
            guidance: join(|i| &i.guidance)?,
            concat: join(|i| &i.concat)?,
            control_context: join(|i| &i.control_context)?,
            control_y: join(|i| &i.control_y)?,
            references: join_each(all)?,
            reference_placement: all.first().map(|i| i.reference_placement).unwrap_or_default(),
        })
    }
}

/// The references of inputs that have equally many, one behind the other on the batch axis.
fn join_each(all: &[ModelInputs]) -> Result<Vec<Tensor>> {
    let count = all.iter().map(|i| i.references.len()).min().unwrap_or(0);
    (0..count)
        .map(|k| match all {
            [only] => Ok(only.references[k].clone()),
            _ => Tensor::cat(&all.iter().map(|i| &i.references[k]).collect::<Vec<_>>(), 0),
        })
        .collect()
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    a / greatest_common_divisor(a, b).max(1) * b
}

/// Whether two lengths meet within four times the shorter one.
fn repeats(a: usize, b: usize) -> bool {
    a > 0 && b > 0 && least_common_multiple(a, b) / a.min(b) <= 4
}

/// What a call takes beside the inputs of its entries.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// A control network whose residuals are added.
    pub control: Option<&'a dyn ControlSource>,
    /// Texts in boxes.
    pub grounding: Option<&'a GroundingHint>,
    /// How many entries share the call.
    pub entries: usize,
    /// Changes to the network's inner workings.
    pub options: &'a ForwardOptions,
}

/// What stands between guidance and a model. It begins anew with every run.
pub trait ModelWrapper: Send + Sync + std::fmt::Debug {
    /// The model of one run.
    fn wrap(&self, model: Arc<dyn NoiseModel>) -> Arc<dyn NoiseModel>;
}

/// A model as guidance sees it.
pub trait NoiseModel: Send + Sync {
    /// Noise levels and prediction type.
    fn sampling(&self) -> &ModelSampling;

    /// Channels of the noisy latent.
    fn latent_channels(&self) -> usize;

    /// Scale between the VAE's latents and the network's, if it is known not to be 1.
    fn latent_format(&self) -> Option<&'static LatentFormat> {
        None
    }

    /// An entry's tensor and options as inputs for a run.
    ///
    /// # Errors
    /// If they do not fit the model.
    fn resolve(&self, entry: &Entry, role: ListRole, run: &Run) -> Result<ModelInputs>;

    /// Denoised prediction for x [B, C, spatial...] at a noise level; every input has B items.
    ///
    /// # Errors
    /// If the network or the control fails.
    fn denoised(&self, x: &Tensor, sigma: f64, inputs: &ModelInputs, call: Call<'_>) -> Result<Tensor>;

    /// The same model with weights that hooks change.
    ///
    /// # Errors
    /// If its weights cannot be changed while it samples, or what changes them does not fit.
    fn hooked(&self, _hooks: &[ActiveHook]) -> Result<Arc<dyn NoiseModel>> {
        candle_core::bail!("the weights of this model cannot be changed while it samples")
    }

    /// Whether a text repeated on the token axis means the same: true where it is only attended to without positions.
    fn context_repeats(&self) -> bool {
        false
    }

    /// Whether a call on an input of this shape fits into the memory that is left.
    fn fits_in_memory(&self, _shape: &[usize]) -> bool {
        true
    }
}
