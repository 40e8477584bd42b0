//! Noise levels and prediction type of a model, in place of its family's.

use std::sync::Arc;

use lattice_diffusion::model_sampling::{SigmaMapKind, flux_shift, ltxv_shift};
use lattice_diffusion::schedules::curves::Ltxv;
use lattice_diffusion::{Prediction, SamplingSettings};
use lattice_graph::Node;
use lattice_models::detect::LatentFormat;

use super::MAX_RESOLUTION;
use crate::Result;
use crate::node::{Choice, node};
use crate::types::{Latent, Model};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        model_sampling_discrete,
        model_sampling_continuous_edm,
        model_sampling_continuous_v,
        model_sampling_stable_cascade,
        model_sampling_sd3,
        model_sampling_aura_flow,
        model_sampling_flux,
        model_sampling_ltxv,
    ]
}

/// Tokens of a latent: the product of its frames, rows and columns.
pub(super) fn tokens(latent: Option<&Latent>) -> usize {
    latent.map_or(Ltxv::DEFAULT_TOKENS, |latent| latent.samples.dims().iter().skip(2).product())
}

/// What a discrete model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Discrete {
    #[choice("eps")]
    Eps,
    #[choice("v_prediction")]
    V,
    #[choice("lcm")]
    Lcm,
    #[choice("x0")]
    X0,
    #[choice("img_to_img")]
    ImgToImg,
}

/// Training timesteps: what the network predicts, and whether the last timestep is pure noise.
#[node(
    name = "ModelSamplingDiscrete",
    title = "ModelSamplingDiscrete",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_discrete(
    model: Model,
    sampling: Discrete,
    #[widget(default = false)] zsnr: bool,
) -> Result<Model> {
    let prediction = match sampling {
        Discrete::Eps => Prediction::Eps,
        Discrete::V => Prediction::V,
        Discrete::Lcm => Prediction::Lcm,
        Discrete::X0 => Prediction::X0,
        Discrete::ImgToImg => Prediction::ImgToImg,
    };
    let base = match sampling {
        Discrete::Lcm => SigmaMapKind::DiscreteDistilled,
        _ => SigmaMapKind::Discrete,
    };
    // The betas are those that the family was trained with.
    let SamplingSettings { beta_schedule, linear_start, linear_end, timesteps, .. } = model.family_settings();
    model.with_settings(SamplingSettings {
        beta_schedule,
        linear_start,
        linear_end,
        timesteps,
        zsnr,
        ..SamplingSettings::new(base, prediction)
    })
}

/// What a continuous model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Continuous {
    #[choice("v_prediction")]
    V,
    #[choice("edm")]
    Edm,
    #[choice("edm_playground_v2.5")]
    Playground,
    #[choice("eps")]
    Eps,
    #[choice("cosmos_rflow")]
    CosmosRflow,
}

/// Noise levels without steps, between two sigmas.
#[node(
    name = "ModelSamplingContinuousEDM",
    title = "ModelSamplingContinuousEDM",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_continuous_edm(
    model: Model,
    sampling: Continuous,
    #[widget(default = 120.0, min = 0.0, max = 1000.0, step = 0.001, round = false)] sigma_max: f64,
    #[widget(default = 0.002, min = 0.0, max = 1000.0, step = 0.001, round = false)] sigma_min: f64,
) -> Result<Model> {
    let edm = SigmaMapKind::ContinuousEdm;
    let (base, prediction, sigma_data) = match sampling {
        Continuous::V => (edm, Prediction::V, 1.0),
        Continuous::Edm | Continuous::Playground => (edm, Prediction::Edm, 0.5),
        Continuous::Eps => (edm, Prediction::Eps, 1.0),
        Continuous::CosmosRflow => (SigmaMapKind::CosmosRflow, Prediction::CosmosRflow, 1.0),
    };
    let settings = SamplingSettings::continuous(base, prediction, sigma_min, sigma_max, sigma_data);
    let model = model.with_settings(settings)?;
    if sampling == Continuous::Playground {
        return model.with_latent_format(LatentFormat::SdxlPlayground25);
    }
    Ok(model)
}

/// Velocity prediction over angles between picture and noise, between two sigmas.
#[node(
    name = "ModelSamplingContinuousV",
    title = "ModelSamplingContinuousV",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_continuous_v(
    model: Model,
    #[choice("v_prediction")]
    #[name("sampling")]
    _sampling: &str,
    #[widget(default = 500.0, min = 0.0, max = 1000.0, step = 0.001, round = false)] sigma_max: f64,
    #[widget(default = 0.03, min = 0.0, max = 1000.0, step = 0.001, round = false)] sigma_min: f64,
) -> Result<Model> {
    let base = SigmaMapKind::ContinuousV;
    model.with_settings(SamplingSettings::continuous(base, Prediction::V, sigma_min, sigma_max, 1.0))
}

/// The cosine schedule of Stable Cascade; a larger shift means more noise.
#[node(
    name = "ModelSamplingStableCascade",
    title = "ModelSamplingStableCascade",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_stable_cascade(
    model: Model,
    #[widget(default = 2.0, min = 0.0, max = 100.0, step = 0.01)] shift: f64,
) -> Result<Model> {
    let settings = SamplingSettings::new(SigmaMapKind::StableCascade, Prediction::Eps);
    model.with_settings(SamplingSettings { shift: Some(shift), ..settings })
}

/// Flow matching; a larger shift means more steps at high noise.
#[node(
    name = "ModelSamplingSD3",
    title = "ModelSamplingSD3",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_sd3(
    model: Model,
    #[widget(default = 3.0, min = 0.0, max = 100.0, step = 0.01)] shift: f64,
) -> Result<Model> {
    const TIME_AT_START: f64 = 1000.0;
    model.with_settings(SamplingSettings::flow(shift, TIME_AT_START))
}

/// Flow matching with times from 0 to 1; a larger shift means more steps at high noise.
#[node(
    name = "ModelSamplingAuraFlow",
    title = "ModelSamplingAuraFlow",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_aura_flow(
    model: Model,
    #[widget(default = 1.73, min = 0.0, max = 100.0, step = 0.01)] shift: f64,
) -> Result<Model> {
    model.with_settings(SamplingSettings::flow(shift, 1.0))
}

/// Flow matching with a shift that grows with the size of the picture.
#[node(
    name = "ModelSamplingFlux",
    title = "ModelSamplingFlux",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_sampling_flux(
    model: Model,
    #[widget(default = 1.15, min = 0.0, max = 100.0, step = 0.01)] max_shift: f64,
    #[widget(default = 0.5, min = 0.0, max = 100.0, step = 0.01)] base_shift: f64,
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 8)] height: usize,
) -> Result<Model> {
    model.with_settings(SamplingSettings::flux(flux_shift(width, height, base_shift, max_shift)))
}

/// Flow matching with a shift that grows with the size of the video.
#[node(name = "ModelSamplingLTXV", category = "advanced/model", module = "comfy_extras.nodes_lt", v3)]
fn model_sampling_ltxv(
    #[widget] model: Model,
    /// Shift at 4096 tokens.
    #[widget(default = 2.05, min = 0.0, max = 100.0, step = 0.01)]
    max_shift: f64,
    /// Shift at 1024 tokens.
    #[widget(default = 0.95, min = 0.0, max = 100.0, step = 0.01)]
    base_shift: f64,
    /// The latent to be denoised: its size sets the shift.
    #[widget]
    latent: Option<Latent>,
) -> Result<Model> {
    let shift = ltxv_shift(tokens(latent.as_ref()), base_shift, max_shift);
    model.with_settings(SamplingSettings::flux(shift))
}
