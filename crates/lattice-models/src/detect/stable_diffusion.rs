//! Which of the Stable Diffusion variants a U-Net is.

use std::sync::Arc;

use lattice_kernels::StoredDType;
use lattice_weights::{Scope, StateDict, Weight};

use super::facts::{Family, LatentFormat, ModelSpec, PictureStatistics, Prediction, Schedule};
use crate::Hints;
use crate::sd_unet::UnetConfig;

/// Spread of a tell-tale bias above which a 2.x file was trained on v: training on eps leaves it smaller.
const V_BIAS_STD: f64 = 0.09;

/// The facts of a U-Net whose tensors stand below `scope`.
pub(super) fn spec(scope: &Scope<'_>, config: &UnetConfig, hints: &Hints, dtype: StoredDType) -> ModelSpec {
    let family = family(config);
    let (prediction, schedule, latent_format) = match family {
        Family::Sd1 => (Prediction::Eps, Schedule::STABLE_DIFFUSION, LatentFormat::Sd15),
        Family::Sd2 => (sd2_prediction(scope, config), Schedule::STABLE_DIFFUSION, LatentFormat::Sd15),
        Family::Sdxl => sdxl_sampling(scope),
        _ => (Prediction::Eps, Schedule::STABLE_DIFFUSION, LatentFormat::Sdxl),
    };
    let prediction = match hints.text("prediction") {
        Some("eps") => Prediction::Eps,
        Some("v") => Prediction::V,
        _ => prediction,
    };
    ModelSpec {
        family,
        prediction,
        schedule,
        latent_format,
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        context_width: config.context_width,
        vector_width: config.added_width,
        guidance: false,
        memory_factor: if family == Family::Sdxl { 0.8 } else { 1.0 },
        dtype,
        picture_statistics: picture_statistics(scope.dict()),
    }
}

/// What unCLIP checkpoints tell of the embeddings they were trained on; it stands beside the network.
fn picture_statistics(dict: &StateDict) -> Option<Arc<PictureStatistics>> {
    let values = |name: &str| dict.get(&format!("noise_augmentor.{name}")).map(Weight::to_f32);
    let (mean, deviation) = (values("data_mean")?, values("data_std")?);
    (mean.len() == deviation.len()).then(|| Arc::new(PictureStatistics { mean, deviation }))
}

/// Widths differ between reduced and published files, so structure decides: 1.x projects by convolutions, 2.x has no
/// added condition unless it reads pictures too (unCLIP), and the refiner has no transformers at its first and last level.
fn family(config: &UnetConfig) -> Family {
    match config.added_width {
        None if config.linear_projection => Family::Sd2,
        None => Family::Sd1,
        Some(_) if config.transformer_depth.last() == Some(&0) => {
            if config.transformer_depth.first() == Some(&0) { Family::SdxlRefiner } else { Family::Sd2 }
        }
        Some(_) => Family::Sdxl,
    }
}

fn sd2_prediction(scope: &Scope<'_>, config: &UnetConfig) -> Prediction {
    let bias = scope.optional("output_blocks.11.1.transformer_blocks.0.norm1.bias");
    match bias {
        Some(bias) if config.in_channels == 4 && population_std(&bias) > V_BIAS_STD => Prediction::V,
        _ => Prediction::Eps,
    }
}

/// SDXL files say by marker tensors if they predict something else than eps. The markers stand beside the network or in it.
fn sdxl_sampling(scope: &Scope<'_>) -> (Prediction, Schedule, LatentFormat) {
    let marker = |name: &str| scope.dict().get(name).cloned().or_else(|| scope.optional(name));
    let number = |name: &str, default: f64| match marker(name) {
        Some(weight) if weight.elem_count() == 1 => f64::from(weight.to_f32()[0]),
        _ => default,
    };
    let continuous =
        |sigma_min, sigma_max, sigma_data| Schedule::Continuous { sigma_min, sigma_max, sigma_data };
    if marker("edm_mean").is_some() && marker("edm_std").is_some() {
        (Prediction::Edm, continuous(0.002, 80.0, 0.5), LatentFormat::SdxlPlayground25)
    } else if marker("edm_vpred.sigma_max").is_some() {
        let schedule =
            continuous(number("edm_vpred.sigma_min", 0.002), number("edm_vpred.sigma_max", 120.0), 1.0);
        (Prediction::V, schedule, LatentFormat::Sdxl)
    } else if marker("v_pred").is_some() {
        let zero_terminal_snr = marker("ztsnr").is_some();
        let schedule = Schedule::ScaledLinear { start: 0.00085, end: 0.012, zero_terminal_snr };
        (Prediction::V, schedule, LatentFormat::Sdxl)
    } else {
        (Prediction::Eps, Schedule::STABLE_DIFFUSION, LatentFormat::Sdxl)
    }
}

fn population_std(weight: &Weight) -> f64 {
    let values = weight.to_f32();
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt()
}
