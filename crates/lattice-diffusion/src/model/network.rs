//! Real networks as noise models.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use lattice_models::detect::{self, Family, ModelSpec};
use lattice_models::network::Reference;
use lattice_models::{ControlNetwork, DiffusionNetwork, NetworkInput};

use super::{Call, ListRole, ModelInputs, NoiseModel, Run, added, concat, unclip};
use crate::conditioning::{ActiveHook, ControlCall, Entry, Guidance, Options};
use crate::latent_format::LatentFormat;
use crate::{ModelSampling, Prediction};

/// Weights of a network, and networks over what hooks make of them.
pub trait WeightHooks: Send + Sync {
    /// A control network with these weights; None if it does without.
    ///
    /// # Errors
    /// If the two do not fit together.
    fn control_network(&self, network: &ControlNetwork) -> Result<Option<ControlNetwork>>;

    /// The network with its weights changed by the hooks, one after the other.
    ///
    /// # Errors
    /// If what changes them is broken.
    fn network(&self, hooks: &[ActiveHook]) -> Result<Arc<dyn DiffusionNetwork>>;
}

/// A network of one of the supported families.
#[derive(Clone)]
pub struct NetworkModel {
    spec: ModelSpec,
    network: Arc<dyn DiffusionNetwork>,
    sampling: ModelSampling,
    hooks: Option<Arc<dyn WeightHooks>>,
    /// Bytes that a call may take beside the weights.
    memory_budget: Option<u64>,
}

impl NetworkModel {
    /// A network with its facts and its noise levels (the family's, or what a node put in their place).
    pub fn new(spec: ModelSpec, network: Arc<dyn DiffusionNetwork>, sampling: ModelSampling) -> Self {
        Self { spec, network, sampling, hooks: None, memory_budget: None }
    }

    /// With other noise levels.
    #[must_use]
    pub fn with_sampling(self, sampling: ModelSampling) -> Self {
        Self { sampling, ..self }
    }

    /// With weights that hooks can change.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<dyn WeightHooks>) -> Self {
        Self { hooks: Some(hooks), ..self }
    }

    /// With a limit to the memory that one call may take.
    #[must_use]
    pub fn with_memory_budget(self, bytes: u64) -> Self {
        Self { memory_budget: Some(bytes), ..self }
    }

    /// Facts of the family.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Working memory of a call on an input of this shape in bytes, with attention that holds no score matrix.
    pub fn working_set(&self, shape: &[usize]) -> u64 {
        let area =
            shape.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, &n)| n as f64).product::<f64>();
        let mib = area * size_of::<f32>() as f64 * 0.01 * self.spec.memory_factor;
        (mib * 1024.0 * 1024.0) as u64
    }

    fn vector(&self, entry: &Entry, role: ListRole, run: &Run) -> Result<Option<Tensor>> {
        let Some(width) = self.spec.vector_width else { return Ok(None) };
        let read = self.pictures_read(entry, width, run)?;
        let options = read.as_ref().unwrap_or(&entry.options);
        let y = match self.spec.family {
            Family::Sdxl => added::sdxl(options, width, run)?,
            Family::SdxlRefiner => added::sdxl_refiner(options, role, width, run)?,
            // unCLIP models read a picture there, not the text; without one it is zeros.
            Family::Sd2 if read.is_none() => Tensor::zeros((1, width), DType::F32, &run.device)?,
            _ => added::pooled(options, width, run)?,
        };
        if y.dim(1)? != width {
            candle_core::bail!(
                "{} takes a vector condition {width} wide, the pooled text makes it {}; was the prompt encoded for \
                 another model?",
                self.spec.family.name(),
                y.dim(1)?
            )
        }
        Ok(Some(y))
    }

    /// The options with what the network reads of the entry's pictures in place of the pooled text; None without pictures.
    fn pictures_read(&self, entry: &Entry, width: usize, run: &Run) -> Result<Option<Options>> {
        let pictures = entry.options.pictures.as_slice();
        let read = match self.spec.family {
            _ if pictures.is_empty() => return Ok(None),
            Family::Sd2 => {
                // Half of the vector is the picture, half says how much noise it got.
                unclip::read(pictures, self.spec.picture_statistics.as_deref(), width / 2, run)?
            }
            Family::Sdxl | Family::SdxlRefiner => {
                // Revision: the picture takes the place of CLIP-G's pooled text.
                let text = width.saturating_sub(added::sizes_width(self.spec.family));
                unclip::read(pictures, None, text, run)?.narrow(1, 0, text)?
            }
            _ => return Ok(None),
        };
        Ok(Some(Options { pooled: Some(read), ..entry.options.clone() }))
    }

    fn guidance(&self, entry: &Entry, run: &Run) -> Result<Option<Tensor>> {
        if !self.spec.guidance {
            return Ok(None);
        }
        let scale = match entry.options.guidance {
            Guidance::Off => return Ok(None),
            Guidance::Scale(scale) => scale,
            Guidance::Usual if self.spec.family == Family::HunyuanVideo => 6.0,
            Guidance::Usual => 3.5,
        };
        Tensor::full(scale as f32, 1, &run.device).map(Some)
    }

    /// Latents to look at, in the network's scale. Families that cannot look at any ignore them.
    fn references(&self, entry: &Entry, run: &Run) -> Result<Vec<Tensor>> {
        if !matches!(self.spec.family, Family::Flux | Family::FluxSchnell) {
            return Ok(Vec::new());
        }
        let scaled = |latent: &Tensor| {
            scale_latent(self.spec.latent_format, &latent.to_device(&run.device)?.to_dtype(DType::F32)?)
        };
        entry.options.references.iter().map(scaled).collect()
    }

    /// Joined channels, where the network's input has more channels than its output.
    fn concat(&self, entry: &Entry, run: &Run) -> Result<Option<Tensor>> {
        let options = &entry.options;
        let extra = self.spec.in_channels.saturating_sub(self.spec.out_channels);
        match (self.spec.family, extra) {
            (_, 0) => Ok(None),
            (Family::Sd1 | Family::Sd2 | Family::Sdxl, 5) => {
                concat::inpaint(options, run, |t| scale_latent(self.spec.latent_format, t)).map(Some)
            }
            (Family::Sd1 | Family::Sd2 | Family::Sdxl, 4) => {
                // Instruct models see the VAE's latent as it is, but for the velocity models of the EDM kind.
                let scaled = self.sampling.prediction() == Prediction::Edm;
                let scale = |t: &Tensor| {
                    if scaled { scale_latent(self.spec.latent_format, t) } else { Ok(t.clone()) }
                };
                concat::instruct(options, run, scale).map(Some)
            }
            (family, extra) => candle_core::bail!(
                "{} with {extra} additional input channels is not a known variant",
                family.name()
            ),
        }
    }
}

/// A VAE's latent in the network's scale.
fn scale_latent(format: detect::LatentFormat, latent: &Tensor) -> Result<Tensor> {
    match LatentFormat::named(format.name()) {
        Some(format) => format.process_in(latent),
        None => candle_core::bail!("the latent format {} is not known", format.name()),
    }
}

impl NoiseModel for NetworkModel {
    fn sampling(&self) -> &ModelSampling {
        &self.sampling
    }

    fn latent_channels(&self) -> usize {
        self.spec.out_channels
    }

    fn latent_format(&self) -> Option<&'static LatentFormat> {
        LatentFormat::named(self.spec.latent_format.name())
    }

    fn resolve(&self, entry: &Entry, role: ListRole, run: &Run) -> Result<ModelInputs> {
        let context = entry.tensor.to_dtype(DType::F32)?.to_device(&run.device)?;
        if let Some(width) = self.spec.context_width {
            let (_, tokens, found) = context.dims3()?;
            if found != width || tokens == 0 {
                candle_core::bail!(
                    "{} takes text states {width} wide, the prompt's are {found} wide ({tokens} tokens); was it \
                     encoded for another model?",
                    self.spec.family.name()
                )
            }
        }
        let (control_context, control_y) = match &entry.options.control_text {
            None => (None, None),
            Some(text) => {
                let pooled = text.pooled.clone();
                let read = Entry { options: Options { pooled, ..entry.options.clone() }, ..entry.clone() };
                let states = text.tensor.to_dtype(DType::F32)?.to_device(&run.device)?;
                (Some(states), self.vector(&read, role, run)?)
            }
        };
        Ok(ModelInputs {
            control_context,
            control_y,
            context: self.spec.context_width.map(|_| context),
            context_mask: entry.options.attention_mask.clone(),
            y: self.vector(entry, role, run)?,
            guidance: self.guidance(entry, run)?,
            concat: self.concat(entry, run)?,
            references: self.references(entry, run)?,
            reference_placement: entry.options.reference_placement,
        })
    }

    fn denoised(&self, x: &Tensor, sigma: f64, inputs: &ModelInputs, call: Call<'_>) -> Result<Tensor> {
        let scaled = self.sampling.network_input(x, sigma)?;
        let timesteps = Tensor::full(self.sampling.timestep(sigma), x.dim(0)?, x.device())?;
        let mut input = NetworkInput {
            context: inputs.context.clone(),
            context_mask: inputs.context_mask.clone(),
            y: inputs.y.clone(),
            guidance: inputs.guidance.clone(),
            reference: (!inputs.references.is_empty()).then(|| Reference {
                latents: inputs.references.clone(),
                placement: inputs.reference_placement,
            }),
            ..NetworkInput::new(scaled, timesteps)
        };
        if let Some(control) = call.control {
            // Control networks see the latent alone, and their own text where there is one.
            let mut seen = input.clone();
            seen.context = inputs.control_context.clone().or(seen.context);
            seen.y = inputs.control_y.clone().or(seen.y);
            let (sampling, entries, weights) = (&self.sampling, call.entries, self.hooks.as_ref());
            let call = ControlCall { input: &seen, sigma, sampling, entries, weights };
            input.control = control.residuals(&call)?;
        }
        if let (Some(grounding), [.., height, width]) = (call.grounding, x.dims()) {
            input.grounding = Some(grounding.at((*height, *width), x.device())?);
        }
        if let Some(concat) = &inputs.concat {
            input.x = Tensor::cat(&[&input.x, concat], 1)?;
        }
        let output = self.network.forward(&input, call.options)?.to_dtype(x.dtype())?;
        self.sampling.denoised(x, &output, sigma)
    }

    fn hooked(&self, hooks: &[ActiveHook]) -> Result<Arc<dyn NoiseModel>> {
        let Some(weights) = &self.hooks else {
            candle_core::bail!("the weights of this model cannot be changed while it samples")
        };
        Ok(Arc::new(Self { network: weights.network(hooks)?, ..self.clone() }))
    }

    fn context_repeats(&self) -> bool {
        matches!(self.spec.family, Family::Sd1 | Family::Sd2 | Family::Sdxl | Family::SdxlRefiner)
    }

    fn fits_in_memory(&self, shape: &[usize]) -> bool {
        self.memory_budget.is_none_or(|budget| self.working_set(shape) <= budget)
    }
}
