//! Sampling put together from parts: noise, guider, solver, noise levels.

use std::sync::Arc;

use lattice_diffusion::sample::{self, initial_noise};
use lattice_graph::{CallContext, Node};

use super::sampling::cfg_guider;
use super::sampling_run::{Job, Sampled, failure};
use crate::Result;
use crate::node::node;
use crate::types::{Conditioning, Guider, Latent, Model, Noise, Sampler, Sigmas};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![sampler_custom, sampler_custom_advanced, random_noise, disable_noise, add_noise]
}

/// Denoises a latent with a solver and noise levels of one's choice, guided towards one conditioning and away from
/// another. The second result is the model's last prediction of the clean latent.
#[node(
    name = "SamplerCustom",
    title = "SamplerCustom",
    category = "sampling/custom_sampling",
    module = "comfy_extras.nodes_custom_sampler",
    outputs("output", "denoised_output")
)]
fn sampler_custom(
    ctx: &CallContext<'_>,
    model: Model,
    #[widget(default = true)] add_noise: bool,
    #[widget(default = 0, min = 0, max = 18446744073709551615, control_after_generate = true)]
    noise_seed: u64,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg: f64,
    positive: Conditioning,
    negative: Conditioning,
    sampler: Sampler,
    sigmas: Sigmas,
    latent_image: Latent,
) -> Result<(Latent, Latent)> {
    let job = Job {
        guider: cfg_guider(&model, positive, negative, cfg),
        sampler: &*sampler.0,
        sigmas: &sigmas.0,
        noise: if add_noise { Noise::Random { seed: noise_seed } } else { Noise::Disabled },
        seed: noise_seed,
    };
    let Sampled { output, denoised } = job.run(ctx, &latent_image)?;
    Ok((output, denoised))
}

/// Denoises a latent with noise, guidance, a solver and noise levels of one's choice. The second result is the model's
/// last prediction of the clean latent.
#[node(
    name = "SamplerCustomAdvanced",
    title = "SamplerCustomAdvanced",
    category = "sampling/custom_sampling",
    module = "comfy_extras.nodes_custom_sampler",
    outputs("output", "denoised_output")
)]
fn sampler_custom_advanced(
    ctx: &CallContext<'_>,
    noise: Noise,
    guider: Guider,
    sampler: Sampler,
    sigmas: Sigmas,
    latent_image: Latent,
) -> Result<(Latent, Latent)> {
    let seed = noise.seed().unwrap_or(0);
    let job = Job { guider: guider.0, sampler: &*sampler.0, sigmas: &sigmas.0, noise, seed };
    let Sampled { output, denoised } = job.run(ctx, &latent_image)?;
    Ok((output, denoised))
}

/// Noise of a seed.
#[node(
    name = "RandomNoise",
    title = "RandomNoise",
    category = "sampling/custom_sampling/noise",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn random_noise(
    #[widget(default = 0, min = 0, max = 18446744073709551615, control_after_generate = true)]
    noise_seed: u64,
) -> Noise {
    Noise::Random { seed: noise_seed }
}

/// No noise, for latents that have some already.
#[node(
    name = "DisableNoise",
    title = "DisableNoise",
    category = "sampling/custom_sampling/noise",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn disable_noise() -> Noise {
    Noise::Disabled
}

/// Adds as much noise to a latent as lies between the first and the last of the noise levels.
#[node(
    name = "AddNoise",
    title = "AddNoise",
    category = "_for_testing/custom_sampling/noise",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn add_noise(model: Model, noise: Noise, sigmas: Sigmas, latent_image: Latent) -> Result<Latent> {
    if sigmas.0.is_empty() {
        return Ok(latent_image);
    }
    let samples = &latent_image.samples;
    let noise =
        initial_noise(samples, noise.seed(), latent_image.batch_index.as_deref()).map_err(failure)?.noise;
    let base = &model.guided.base;
    let noisy = sample::add_noise(base.sampling(), base.latent_format(), &sigmas.0, &noise, samples)
        .map_err(failure)?;
    Ok(latent_image.with_samples(noisy))
}
