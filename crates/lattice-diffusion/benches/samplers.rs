//! What solvers cost beside the network: time per model call of every sampler, and its share of a guided call of the demo
//! model, on the demo model's latent.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use lattice_diffusion::conditioning::Entry;
use lattice_diffusion::guidance::{Guider, GuiderKind, Model};
use lattice_diffusion::model::{NetworkModel, Run};
use lattice_diffusion::noise::prepare_noise;
use lattice_diffusion::sample::Sampling;
use lattice_diffusion::samplers::{SAMPLERS, Sampler, Silent, sampler_named};
use lattice_diffusion::schedules::Scheduler;
use lattice_diffusion::{Denoised, Denoiser, ModelSampling, SamplingSettings};
use lattice_models::Checkpoint;

/// A batch of one picture of 128 by 128 pixels.
const SHAPE: [usize; 4] = [1, 4, 16, 16];
const STEPS: usize = 20;
/// Measurements, of which the median counts.
const RUNS: usize = 15;

/// A prediction that costs nothing: a tensor that is there already.
struct Free {
    denoised: Tensor,
    calls: u32,
}

impl Denoiser for Free {
    fn denoise(&mut self, _x: &Tensor, _sigma: f64, need_uncond: bool) -> Result<Denoised> {
        self.calls += 1;
        Ok(Denoised { denoised: self.denoised.clone(), uncond: need_uncond.then(|| self.denoised.clone()) })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Time per model call, the call itself excluded.
fn arithmetic(model: &ModelSampling, sampler: &dyn Sampler) -> Duration {
    let noise = prepare_noise(&SHAPE, 1, None).expect("noise");
    let latent = Tensor::zeros(&SHAPE, DType::F32, &Device::Cpu).expect("latent");
    let sigmas = Scheduler::named("karras").and_then(|s| s.sigmas(model, STEPS)).expect("schedule");
    let sampling = Sampling {
        model,
        format: None,
        sampler,
        sigmas: &sigmas,
        noise: &noise,
        seed: 1,
        latent: &latent,
        mask: None,
    };
    let times = (0..RUNS).map(|_| {
        let mut denoiser = Free { denoised: (&noise.noise * 0.1).expect("prediction"), calls: 0 };
        let start = Instant::now();
        sampling.run(&mut denoiser, &mut Silent).expect("a run");
        start.elapsed() / denoiser.calls.max(1)
    });
    median(times.collect())
}

/// Time of one call of the demo model with guidance: both prompts in one batch.
fn network_call(model: &ModelSampling) -> Duration {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo-model/lattice-demo-emoji.safetensors");
    let checkpoint = Checkpoint::load(&lattice_weights::safetensors::open(&file).expect("the demo model"))
        .expect("a model");
    let part = checkpoint.diffusion;
    let width = part.spec.context_width.expect("text states");
    let text = |seed| vec![Entry::new(prepare_noise(&[1, 77, width], seed, None).expect("text").noise)];
    let network = NetworkModel::new(part.spec, part.network, model.clone());
    let kind = GuiderKind::Cfg { positive: text(1), negative: text(2), cfg: 7.0 };
    let guider = Guider { model: Model::new(Arc::new(network)), kind };
    let mut run = guider.start(Run::new(&SHAPE, &Device::Cpu)).expect("a run");
    let x = prepare_noise(&SHAPE, 3, None).expect("noise").noise;
    let mut call = || {
        let start = Instant::now();
        run.denoise(&x, 1.0, false).expect("a prediction");
        start.elapsed()
    };
    call();
    median((0..RUNS).map(|_| call()).collect())
}

fn main() {
    let model = ModelSampling::new(&SamplingSettings::eps()).expect("noise levels");
    let call = network_call(&model);
    println!("demo model, guided call of {SHAPE:?}: {:.2} ms", call.as_secs_f64() * 1e3);
    println!("{:<32} {:>10} {:>8}", "sampler", "us / call", "share");
    for named in SAMPLERS {
        let sampler = sampler_named(named.name).expect("a sampler of the table");
        let time = arithmetic(&model, &*sampler);
        let share = time.as_secs_f64() / call.as_secs_f64() * 100.0;
        println!("{:<32} {:>10.1} {share:>6.2} %", named.name, time.as_secs_f64() * 1e6);
    }
}
