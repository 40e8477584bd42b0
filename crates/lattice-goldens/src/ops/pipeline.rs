//! From a prompt to a picture on a synthetic checkpoint, with the pieces that the nodes are made of.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use lattice_diffusion::conditioning::{Entry, Guidance, SizeOptions};
use lattice_diffusion::guidance::{Guider, GuiderKind};
use lattice_diffusion::latent_format::{LatentFormat, is_empty};
use lattice_diffusion::model::Run;
use lattice_diffusion::sample::{Sampling, initial_noise};
use lattice_diffusion::samplers::{Silent, sampler_named};
use lattice_diffusion::schedules::{Scheduler, ksampler_schedule};
use lattice_models::detect::{DiffusionPart, Family, TextPart, VaePart};
use lattice_nodes::types::{Clip, ClipFamily, Model, Vae};
use lattice_weights::StateDict;
use serde_json::Value as Json;

use super::Operation;
use super::models::{checkpoint, compare, synthetic};
use crate::{Case, Outcome};

/// The operation of whole pictures.
pub(super) const OPERATIONS: &[Operation] = &[("models", "pipeline", pipeline)];

/// The parts of a case: in one checkpoint, or text encoders and VAE in files of their own.
struct Parts {
    model: Model,
    clip: Clip,
    vae: Vae,
}

impl Parts {
    fn load(case: &Case<'_>, params: &Json) -> Result<Self> {
        let dict = checkpoint(case)?;
        let model = Model::new(Arc::new(DiffusionPart::load(&dict)?)).map_err(anyhow::Error::new)?;
        let seed = case.json["checkpoint"]["seed"].as_u64().unwrap_or(0);
        let file = |name: &str| -> Result<Option<StateDict>> {
            let manifest = params["files"][name].as_str();
            manifest.map(|manifest| synthetic(manifest, seed, "F32")).transpose()
        };
        let mut encoders = Vec::new();
        for name in ["clip_l", "clip_g", "t5xxl"] {
            if let Some(dict) = file(name)? {
                encoders.push(TextPart::load(&dict)?);
            }
        }
        let whole = lattice_models::detect::Checkpoint::load(&dict)?;
        if encoders.is_empty() {
            encoders = whole.text_encoders;
        }
        let vae = match file("vae")? {
            Some(dict) => VaePart::load(&dict)?,
            None => whole.vae.context("the checkpoint has no VAE")?,
        };
        let family = ClipFamily::of_model(model.spec().family).map_err(anyhow::Error::new)?;
        let clip = Clip::new(family, encoders, None).map_err(anyhow::Error::new)?;
        Ok(Self { model, clip, vae: Vae::from(&vae) })
    }

    /// A prompt as the network reads it. The reduced SD3 reads fewer values than its text is padded to.
    fn encode(&self, text: &str) -> Result<Entry> {
        let encoded = self.clip.encode_text(text).map_err(anyhow::Error::new)?;
        let states = match self.model.spec().context_width {
            Some(width) if self.model.spec().family == Family::Sd3 && width < encoded.states.dim(2)? => {
                encoded.states.narrow(2, 0, width)?.contiguous()?
            }
            _ => encoded.states,
        };
        let mut entry = Entry::new(states);
        entry.options.pooled = encoded.pooled;
        entry.options.attention_mask = encoded.mask;
        Ok(entry)
    }
}

fn pipeline(case: &Case<'_>) -> Result<Outcome> {
    let params = case.field("params")?;
    let number = |name: &str| params[name].as_f64().with_context(|| format!("params have no {name}"));
    let text = |name: &str| params[name].as_str().with_context(|| format!("params have no {name}"));
    let parts = Parts::load(case, params)?;
    let spec = parts.model.spec();

    let (mut positive, mut negative) = (parts.encode(text("positive")?)?, parts.encode(text("negative")?)?);
    let mut checks =
        vec![compare(case, "cond", &positive.tensor)?, compare(case, "uncond", &negative.tensor)?];
    if case.has_tensor("pooled") {
        checks.push(compare(case, "pooled", positive.options.pooled.as_ref().context("no pooled text")?)?);
    }
    for entry in [&mut positive, &mut negative] {
        let add = &params["add"];
        let size = |name: &str| add[name].as_f64();
        entry.options.guidance = size("guidance").map_or(Guidance::Usual, Guidance::Scale);
        entry.options.sizes = SizeOptions {
            width: size("width"),
            height: size("height"),
            crop_w: size("crop_w"),
            crop_h: size("crop_h"),
            target_width: size("target_width"),
            target_height: size("target_height"),
            aesthetic_score: size("aesthetic_score"),
        };
        if case.has_tensor("concat_latent") {
            entry.options.concat_latent = Some(case.tensor("concat_latent")?);
            entry.options.concat_mask = Some(case.tensor("concat_mask")?);
        }
    }

    let format = LatentFormat::named(spec.latent_format.name());
    let latent = if case.has_tensor("start_latent") {
        case.tensor("start_latent")?
    } else {
        let (width, height) = (number("width")? as usize / 8, number("height")? as usize / 8);
        let shape = (1, spec.out_channels, height, width);
        Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu)?
    };
    let seed = number("seed")? as u64;
    let noise = initial_noise(&latent, Some(seed), None)?;
    checks.push(compare(case, "noise", &noise.noise)?);

    let mut run = Run::new(latent.dims(), latent.device());
    run.latent = match format {
        Some(format) if !is_empty(&latent)? => Some(format.process_in(&latent)?),
        _ => Some(latent.clone()),
    };
    let kind = GuiderKind::Cfg { positive: vec![positive], negative: vec![negative], cfg: number("cfg")? };
    let mut denoiser = Guider { model: parts.model.guided.clone(), kind }.start(run)?;
    let sampler = sampler_named(text("sampler")?)?;
    let model = parts.model.guided.base.sampling();
    let sigmas = ksampler_schedule(
        model,
        Scheduler::named(text("scheduler")?)?,
        number("steps")? as usize,
        number("denoise")?,
        sampler.drops_penultimate_sigma(),
    )?;
    let sampling = Sampling {
        model,
        format,
        sampler: sampler.as_ref(),
        sigmas: &sigmas,
        noise: &noise,
        seed,
        latent: &latent,
        mask: None,
    };
    let samples = sampling.run(&mut denoiser, &mut Silent)?.samples;
    checks.push(compare(case, "latent", &samples)?);
    checks.push(compare(case, "image_nhwc", &parts.vae.decode(&samples)?)?);
    Ok(Outcome::Ran(checks))
}
