//! Samplers on data whose equations can be solved: one step, many steps, masks, batches.

use candle_core::Tensor;
use lattice_diffusion::model_sampling::SigmaMapKind;
use lattice_diffusion::noise::prepare_noise;
use lattice_diffusion::sample::DenoiseMask;
use lattice_diffusion::samplers::{
    Dpm2, Dpm2Ancestral, Dpmpp2mSde, Dpmpp2sAncestral, ErSde, Euler, EulerAncestral, Heun, SAMPLERS, Sampler,
    sampler_named,
};
use lattice_diffusion::schedules::{SCHEDULERS, Scheduler, ksampler_schedule};
use lattice_diffusion::{Denoiser, ModelSampling, Prediction, SamplingSettings};
use proptest::prelude::*;

use crate::gaussian::{Case, DEVIATION, Gaussian, MEAN, discrete, flow, values, zeros};

/// Those without noise of their own, on one prediction.
const DETERMINISTIC: [&str; 12] = [
    "euler",
    "ddim",
    "heun",
    "heunpp2",
    "dpm_2",
    "lms",
    "ipndm",
    "ipndm_v",
    "deis",
    "dpmpp_2m",
    "res_multistep",
    "gradient_estimation",
];

/// Those whose first step is Euler's: the multistep ones, which have no history yet.
const EULER_AT_FIRST: [&str; 8] =
    ["euler", "ddim", "lms", "ipndm", "ipndm_v", "dpmpp_2m", "res_multistep", "gradient_estimation"];

fn models() -> [ModelSampling; 2] {
    [discrete(), flow()]
}

/// Noise levels of every kind: up to 14.6, to 1 (three shapes), to 4500, to 700 and to 80.
fn all_models() -> Vec<(&'static str, ModelSampling)> {
    let edm = |kind, prediction, most| SamplingSettings::continuous(kind, prediction, 0.002, most, 1.0);
    let zero_snr =
        SamplingSettings { zsnr: true, ..SamplingSettings::new(SigmaMapKind::Discrete, Prediction::V) };
    let settings = [
        ("discrete", SamplingSettings::eps()),
        ("flow", SamplingSettings::flow(3.0, 1000.0)),
        ("flow with shift 1", SamplingSettings::flow(1.0, 1.0)),
        ("flow with shift 8", SamplingSettings::flow(8.0, 1000.0)),
        ("Flux", SamplingSettings::flux(1.15)),
        ("zero SNR", zero_snr),
        ("EDM", edm(SigmaMapKind::ContinuousEdm, Prediction::V, 700.0)),
        ("Cosmos", edm(SigmaMapKind::CosmosRflow, Prediction::CosmosRflow, 80.0)),
    ];
    settings.map(|(name, settings)| (name, ModelSampling::new(&settings).unwrap())).into()
}

fn most(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// The noisy start of a run from an empty latent.
fn start(model: &ModelSampling, sigma: f64, latent: &Tensor, seed: u64) -> Tensor {
    let noise = prepare_noise(latent.dims(), seed, None).unwrap().noise;
    model.noise_scaling(sigma, &noise, latent, model.is_max(sigma)).unwrap()
}

fn run(model: &ModelSampling, sampler: &dyn Sampler, sigmas: &[f32], latent: &Tensor, seed: u64) -> Tensor {
    Case { model, sampler, sigmas, latent, seed, mask: None }.run().unwrap().0.samples
}

/// x at `to` for x at `from`: the deviation from the mean shrinks as that of all noisy data does.
fn exact(model: &ModelSampling, x: &Tensor, from: f64, to: f64) -> Tensor {
    let deviation = |s: f64| (model.alpha(s) * DEVIATION).hypot(s);
    let ratio = deviation(to) / deviation(from);
    x.affine(ratio, MEAN * (model.alpha(to) - model.alpha(from) * ratio)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_step_to_zero_is_the_prediction(seed in any::<u64>(), share in 0.1f64..1.0) {
        let latent = zeros(&[2, 4, 3, 5]);
        for model in models() {
            let s = (model.sigma_max() * share) as f32;
            let x = start(&model, f64::from(s), &latent, seed);
            let expected = Gaussian::of(&model).expectation(&x, f64::from(s), MEAN).unwrap();
            for named in SAMPLERS {
                // These end above zero, or make levels of their own.
                if ["uni_pc", "uni_pc_bh2", "dpm_fast", "dpm_adaptive"].contains(&named.name) {
                    continue;
                }
                // A first level of 1 is no level for solvers in the log of the signal-to-noise ratio; it is moved.
                let sampler = sampler_named(named.name).unwrap();
                let got = run(&model, &*sampler, &[s, 0.0], &latent, seed);
                let off = most(&values(&got), &values(&expected));
                prop_assert!(off < 1e-4, "{}: {off} off", named.name);
            }
        }
    }

    #[test]
    fn first_steps_are_eulers_or_the_formula(seed in any::<u64>(), share in 0.2f64..0.95, ratio in 0.3f64..0.9) {
        let latent = zeros(&[1, 4, 3, 5]);
        for model in models() {
            let s = (model.sigma_max() * share) as f32;
            let s1 = (f64::from(s) * ratio) as f32;
            let sigmas = [s, s1];
            let (s, s1) = (f64::from(s), f64::from(s1));
            let x = start(&model, s, &latent, seed);
            let derivative = |x: &Tensor, s: f64| {
                let denoised = Gaussian::of(&model).denoise(x, s, false).unwrap().denoised;
                ((x - denoised).unwrap() / s).unwrap()
            };
            let moved = |x: &Tensor, d: &Tensor, h: f64| (x + (d * h).unwrap()).unwrap();
            let finished = |x: Tensor| values(&model.inverse_noise_scaling(s1, &x).unwrap());
            let check = |name: &str, sampler: &dyn Sampler, expected: &[f32]| {
                let got = values(&run(&model, sampler, &sigmas, &latent, seed));
                let largest = expected.iter().fold(1f32, |most, v| most.max(v.abs()));
                let off = most(&got, expected) / largest;
                prop_assert!(off < 1e-5, "{name}: {off} off from {s} to {s1}");
                Ok(())
            };

            let d = derivative(&x, s);
            let euler = moved(&x, &d, s1 - s);
            let expected = finished(euler.clone());
            for name in EULER_AT_FIRST {
                check(name, &*sampler_named(name).unwrap(), &expected)?;
            }
            check("dpmpp_2m_sde", &Dpmpp2mSde { eta: 0.0, ..Default::default() }, &expected)?;
            check("er_sde", &ErSde::of_solver("ODE", 0.0, 1.0, 3).unwrap(), &expected)?;
            check("euler_ancestral", &EulerAncestral { eta: 0.0, s_noise: 1.0 }, &expected)?;

            let slope = ((&d + derivative(&euler, s1)).unwrap() * 0.5).unwrap();
            check("heun", &Heun::default(), &finished(moved(&x, &slope, s1 - s)))?;

            let mid = (s * s1).sqrt();
            let slope = derivative(&moved(&x, &d, mid - s), mid);
            let expected = finished(moved(&x, &slope, s1 - s));
            check("dpm_2", &Dpm2::default(), &expected)?;
            check("dpm_2_ancestral", &Dpm2Ancestral { eta: 0.0, s_noise: 1.0 }, &expected)?;
        }
    }

    #[test]
    fn kept_regions_are_untouched(seed in any::<u64>(), mask_seed in any::<u64>()) {
        let shape = [1, 4, 6, 6];
        let latent = prepare_noise(&shape, mask_seed, None).unwrap().noise;
        let noise = prepare_noise(&[1, 1, 6, 6], mask_seed.wrapping_add(1), None).unwrap().noise;
        let mask = noise.gt(0.0f64).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        let kept: Vec<bool> = values(&mask.broadcast_as(&shape[..]).unwrap().contiguous().unwrap())
            .iter()
            .map(|m| *m == 0.0)
            .collect();
        let mask = DenoiseMask { mask, differential: None };
        let before = values(&latent);
        for model in models() {
            let sigmas = Scheduler::named("normal").unwrap().sigmas(&model, 6).unwrap();
            for named in SAMPLERS {
                // These do not end at zero, where the kept region would be what it was.
                if ["uni_pc", "uni_pc_bh2", "dpm_fast", "dpm_adaptive"].contains(&named.name) {
                    continue;
                }
                let sampler = sampler_named(named.name).unwrap();
                let case = Case {
                    model: &model, sampler: &*sampler, sigmas: &sigmas, latent: &latent, seed, mask: Some(&mask),
                };
                let after = values(&case.run().unwrap().0.samples);
                for ((kept, before), after) in kept.iter().zip(&before).zip(&after) {
                    prop_assert!(!kept || (before - after).abs() < 1e-4, "{}: {before} became {after}", named.name);
                }
                let changed = kept.iter().zip(&before).zip(&after).filter(|((k, b), a)| !**k && *b != *a).count();
                prop_assert!(changed > 0 || kept.iter().all(|k| *k), "{} changed nothing", named.name);
            }
        }
    }

    #[test]
    fn a_batch_is_its_items(seed in any::<u64>(), items in 2usize..4) {
        // Noise by index: each item is its own draw.
        let noise = |indices: &[usize]| prepare_noise(&[items, 4, 3, 3], seed, Some(indices)).unwrap();
        for model in models() {
            let sigmas = Scheduler::named("karras").unwrap().sigmas(&model, 7).unwrap();
            // Noise drawn while stepping is one draw for the whole batch, so only solvers without it are their items'.
            for name in DETERMINISTIC {
                let sampler = sampler_named(name).unwrap();
                let all: Vec<usize> = (0..items).collect();
                let batch = from_noise(&model, &*sampler, &sigmas, &noise(&all), seed);
                for item in 0..items {
                    let single = from_noise(&model, &*sampler, &sigmas, &noise(&[item]), seed);
                    prop_assert_eq!(values(&batch.get(item).unwrap()), values(&single), "{} {}", name, item);
                }
            }
        }
    }
}

/// A run from given noise.
fn from_noise(
    model: &ModelSampling,
    sampler: &dyn Sampler,
    sigmas: &[f32],
    noise: &lattice_diffusion::noise::PreparedNoise,
    seed: u64,
) -> Tensor {
    let latent = zeros(noise.noise.dims());
    let sampling = lattice_diffusion::sample::Sampling {
        model,
        format: None,
        sampler,
        sigmas,
        noise,
        seed,
        latent: &latent,
        mask: None,
    };
    sampling.run(&mut Gaussian::of(model), &mut lattice_diffusion::samplers::Silent).unwrap().samples
}

#[test]
fn solvers_converge_to_the_solution() {
    let latent = zeros(&[1, 4, 4, 4]);
    for (model_name, model) in all_models() {
        // Flow models start at pure noise, where the log of the signal-to-noise ratio is infinite.
        let (from, to) = (model.sigma_max() * 0.9, model.sigma_max() * 0.05);
        let levels = |steps: usize| -> Vec<f32> {
            (0..=steps).map(|k| (from * (to / from).powf(k as f64 / steps as f64)) as f32).collect()
        };
        let x = start(&model, f64::from(from as f32), &latent, 3);
        let solution = model.inverse_noise_scaling(to, &exact(&model, &x, from, to)).unwrap();
        // Relative to what is left of the noise.
        let size = values(&solution).iter().fold(1f32, |most, v| most.max(v.abs()));
        let error = |sampler: &dyn Sampler, steps| {
            most(&values(&run(&model, sampler, &levels(steps), &latent, 3)), &values(&solution)) / size
        };
        let mut solvers: Vec<(&str, std::sync::Arc<dyn Sampler>)> =
            DETERMINISTIC.iter().map(|name| (*name, sampler_named(name).unwrap())).collect();
        solvers.push(("dpmpp_2s", std::sync::Arc::new(Dpmpp2sAncestral { eta: 0.0, ..Default::default() })));
        solvers.push(("dpmpp_2m_sde", std::sync::Arc::new(Dpmpp2mSde { eta: 0.0, ..Default::default() })));
        let euler = error(&Euler::default(), 160);
        for (name, sampler) in solvers {
            let (coarse, fine) = (error(&*sampler, 40), error(&*sampler, 160));
            assert!(
                fine < coarse * 0.5 || fine < 1e-4,
                "{model_name}, {name}: {coarse} with 40 steps, {fine} with 160"
            );
            assert!(fine <= euler * 1.01 + 1e-5, "{model_name}, {name}: {fine} off, Euler's method {euler}");
        }
    }
}

/// Whatever the model, the scheduler and the number of steps: a run ends, and its result is made of numbers; of numbers near the data
/// where the solver and the steps are fit for the model.
#[test]
fn every_combination_ends_in_numbers() {
    /// They end at the last level above 0, or extrapolate far where steps are uneven.
    const ROUGH: [&str; 3] = ["dpm_fast", "dpm_adaptive", "ipndm_v"];
    let latent = zeros(&[2, 4, 3, 5]);
    let mut wrong = Vec::new();
    for (model_name, model) in all_models() {
        for scheduler in SCHEDULERS {
            for (steps, denoise) in [(1, 1.0), (2, 1.0), (3, 0.45), (9, 1.0), (12, 0.45)] {
                for &name in SAMPLERS.iter().map(|sampler| &sampler.name) {
                    let sampler = sampler_named(name).unwrap();
                    let drops = sampler.drops_penultimate_sigma();
                    let Ok(sigmas) = ksampler_schedule(&model, *scheduler, steps, denoise, drops) else {
                        continue;
                    };
                    // Some schedulers make levels of one step that are no schedule.
                    let falls = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
                    if sigmas.len() < 2 || !falls || sigmas.iter().any(|s| !s.is_finite()) {
                        continue;
                    }
                    let sampler = &*sampler;
                    let case = Case {
                        model: &model,
                        sampler,
                        sigmas: &sigmas,
                        latent: &latent,
                        seed: 7,
                        mask: None,
                    };
                    let values = case.run().map(|(sampled, _)| values(&sampled.samples));
                    let most = match &values {
                        Err(_) => f32::NAN,
                        Ok(values) => most(values, &vec![0.0; values.len()]),
                    };
                    let near = steps < 9 || ROUGH.contains(&name) || most < 60.0;
                    if !most.is_finite() || !near {
                        let what =
                            format!("{model_name}, {}, {steps} steps of {denoise}, {name}", scheduler.name);
                        wrong.push(format!("{what}: {most} {:?}", values.err()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
