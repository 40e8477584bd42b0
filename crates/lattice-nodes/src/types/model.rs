//! Diffusion models and what samplers take beside them.

use std::sync::Arc;

use lattice_diffusion::guidance;
use lattice_diffusion::model::NetworkModel;
use lattice_diffusion::model_sampling::SigmaMapKind;
use lattice_diffusion::{ModelSampling, Prediction, SamplingSettings, conditioning};
use lattice_models::DiffusionNetwork;
use lattice_models::detect::{self, DiffusionPart, ModelSpec};
use lattice_weights::StateDict;
use lattice_weights::patcher::{PatchSet, PatchedWeights};

use super::hooks::HookedNetwork;
use super::placed;
use crate::node::GraphType;
use crate::{Error, Result};

/// A diffusion model: base weights and the changes that nodes made, both shared. A copy costs nothing.
#[derive(Clone)]
pub struct Model {
    /// The network with its weights by name, as they are in the file.
    pub part: Arc<DiffusionPart>,
    /// The same weights, and the patches on them.
    pub patched: PatchedWeights,
    /// The network over the patched weights.
    network: Arc<dyn DiffusionNetwork>,
    /// Noise levels and prediction type: the family's, or what a node put in their place.
    pub settings: SamplingSettings,
    /// Scale of its latents: the family's, or what a node put in its place.
    latent_format: detect::LatentFormat,
    /// The network as guidance sees it, and changes to guidance.
    pub guided: guidance::Model,
}

impl GraphType for Model {
    const NAME: &'static str = "MODEL";
}

impl Model {
    /// A model as it is in its file.
    ///
    /// # Errors
    /// If its noise levels make no schedule.
    pub fn new(part: Arc<DiffusionPart>) -> Result<Self> {
        let settings = family_settings(&part.spec);
        let latent_format = part.spec.latent_format;
        let patched = PatchedWeights::new(part.weights.clone(), "diffusion_model.", super::PATCH_CACHE_BYTES);
        let network = placed::diffusion_network(&part, &patched);
        let base = noise_model(&part, &patched, &network, &settings, latent_format)?;
        let guided = guidance::Model::new(Arc::new(base));
        Ok(Self { part, patched, network, settings, latent_format, guided })
    }

    /// The same model with one more set of patches on its weights. They are computed when the network first runs, and only
    /// those of tensors that no earlier combination had.
    ///
    /// # Errors
    /// If the noise levels make no schedule.
    pub fn with_adapter(&self, set: Arc<PatchSet>) -> Result<Self> {
        let patched = self.patched.with(set);
        let network = placed::diffusion_network(&self.part, &patched);
        Self { patched, network, ..self.clone() }.rebuilt()
    }

    /// The weights as the network sees them: shared with the file where nothing is patched, and with the network.
    ///
    /// # Errors
    /// If an adapter holds what is no number.
    pub fn weights(&self) -> Result<StateDict> {
        self.patched.weights().map_err(Error::other)
    }

    /// Facts of the family.
    pub fn spec(&self) -> &ModelSpec {
        &self.part.spec
    }

    /// Noise levels and prediction type of the family, whatever nodes have put in their place.
    pub fn family_settings(&self) -> SamplingSettings {
        family_settings(&self.part.spec)
    }

    /// The same model with other noise levels.
    ///
    /// # Errors
    /// If they make no schedule.
    pub fn with_settings(&self, settings: SamplingSettings) -> Result<Self> {
        Self { settings, ..self.clone() }.rebuilt()
    }

    /// The same model with latents of another scale.
    ///
    /// # Errors
    /// None; the noise levels have made a schedule before.
    pub fn with_latent_format(&self, latent_format: detect::LatentFormat) -> Result<Self> {
        Self { latent_format, ..self.clone() }.rebuilt()
    }

    /// With the network as guidance sees it made anew.
    fn rebuilt(mut self) -> Result<Self> {
        let base = noise_model(&self.part, &self.patched, &self.network, &self.settings, self.latent_format)?;
        self.guided.base = Arc::new(base);
        Ok(self)
    }

    /// The same model with guidance changed.
    #[must_use]
    pub fn with_patches(&self, change: impl FnOnce(&mut guidance::Patches)) -> Self {
        let mut model = self.clone();
        change(&mut model.guided.patches);
        model
    }
}

fn noise_model(
    part: &Arc<DiffusionPart>,
    patched: &PatchedWeights,
    network: &Arc<dyn DiffusionNetwork>,
    settings: &SamplingSettings,
    latent_format: detect::LatentFormat,
) -> Result<NetworkModel> {
    let sampling = ModelSampling::new(settings).map_err(Error::other)?;
    let spec = ModelSpec { latent_format, ..part.spec.clone() };
    let hooks = HookedNetwork { part: part.clone(), patched: patched.clone() };
    Ok(NetworkModel::new(spec, network.clone(), sampling).with_hooks(Arc::new(hooks)))
}

/// The settings that the facts of a family amount to.
fn family_settings(spec: &ModelSpec) -> SamplingSettings {
    let prediction = match spec.prediction {
        detect::Prediction::Eps => Prediction::Eps,
        detect::Prediction::V => Prediction::V,
        detect::Prediction::Edm => Prediction::Edm,
        detect::Prediction::Flow => Prediction::Const,
    };
    match spec.schedule {
        detect::Schedule::ScaledLinear { start, end, zero_terminal_snr } => SamplingSettings {
            linear_start: Some(start),
            linear_end: Some(end),
            zsnr: zero_terminal_snr,
            ..SamplingSettings::new(SigmaMapKind::Discrete, prediction)
        },
        detect::Schedule::Continuous { sigma_min, sigma_max, sigma_data } => SamplingSettings::continuous(
            SigmaMapKind::ContinuousEdm,
            prediction,
            sigma_min,
            sigma_max,
            sigma_data,
        ),
        detect::Schedule::Flow { shift, multiplier } => SamplingSettings::flow(shift, multiplier),
        detect::Schedule::ExponentialFlow { shift } => SamplingSettings::flux(shift),
    }
}

/// Encoded prompts with where, when and how strongly they apply.
#[derive(Clone, Debug)]
pub struct Conditioning(pub conditioning::Conditioning);

impl GraphType for Conditioning {
    const NAME: &'static str = "CONDITIONING";

    fn bytes(&self) -> usize {
        self.0.iter().map(|entry| super::tensor_bytes(&entry.tensor)).sum()
    }
}
