//! Schedules fall from the model's noise to nothing, whatever is asked of them.

use lattice_diffusion::model_sampling::SigmaMapKind;
use lattice_diffusion::schedules::edit::{self, Spacing};
use lattice_diffusion::schedules::{SCHEDULERS, basic_schedule, curves, ksampler_schedule, tables};
use lattice_diffusion::{ModelSampling, Prediction, SamplingSettings};
use proptest::prelude::*;

fn models() -> impl Strategy<Value = ModelSampling> {
    let settings = prop_oneof![
        Just(SamplingSettings::eps()),
        Just(SamplingSettings { zsnr: true, ..SamplingSettings::eps() }),
        Just(SamplingSettings::new(SigmaMapKind::DiscreteDistilled, Prediction::Lcm)),
        (0.2f64..12.0, 1.0f64..1000.0)
            .prop_map(|(shift, multiplier)| SamplingSettings::flow(shift, multiplier)),
        (0.2f64..3.0).prop_map(SamplingSettings::flux),
        (0.001f64..0.1, 10.0f64..700.0).prop_map(|(min, max)| {
            SamplingSettings::continuous(SigmaMapKind::ContinuousEdm, Prediction::V, min, max, 1.0)
        }),
        (0.001f64..0.1, 10.0f64..500.0).prop_map(|(min, max)| {
            SamplingSettings::continuous(SigmaMapKind::ContinuousV, Prediction::V, min, max, 1.0)
        }),
    ];
    settings.prop_map(|settings| ModelSampling::new(&settings).unwrap())
}

/// Finite, never rising, at most `max` (up to the rounding of a tangent or an exponential in single precision), ending
/// in 0.
fn falls_to_zero(sigmas: &[f32], max: f64) -> Result<(), TestCaseError> {
    prop_assert!(sigmas.iter().all(|s| s.is_finite() && *s >= 0.0), "{sigmas:?}");
    prop_assert!(sigmas.windows(2).all(|pair| pair[0] >= pair[1]), "{sigmas:?}");
    prop_assert!(f64::from(sigmas[0]) <= max * (1.0 + 1e-4), "{} above {max}", sigmas[0]);
    prop_assert_eq!(sigmas.last(), Some(&0.0));
    Ok(())
}

proptest! {
    #[test]
    fn named_schedules_fall_to_zero(model in models(), steps in 2usize..80) {
        for scheduler in SCHEDULERS {
            let sigmas = scheduler.sigmas(&model, steps).unwrap();
            falls_to_zero(&sigmas, model.sigma_max())?;
            // Two may have more or fewer steps than asked, as they choose among the table's entries.
            if !["ddim_uniform", "beta"].contains(&scheduler.name) {
                prop_assert_eq!(sigmas.len(), steps + 1, "{}", scheduler.name);
            }
        }
    }

    #[test]
    fn a_share_of_a_schedule_is_its_end(model in models(), steps in 2usize..40, denoise in 0.05f64..1.0) {
        for scheduler in SCHEDULERS {
            let whole = scheduler.sigmas(&model, (steps as f64 / denoise) as usize).unwrap();
            for share in [
                basic_schedule(&model, *scheduler, steps, denoise).unwrap(),
                ksampler_schedule(&model, *scheduler, steps, denoise, false).unwrap(),
            ] {
                prop_assert!(share.len() <= steps + 1);
                prop_assert!(whole.ends_with(&share), "{}", scheduler.name);
            }
        }
    }

    #[test]
    fn curves_fall_to_zero(
        steps in 2usize..80,
        min in 0.001f64..0.5,
        span in 1.0f64..200.0,
        rho in 0.5f64..12.0,
    ) {
        let max = min + span;
        falls_to_zero(&curves::karras(steps, min, max, rho).unwrap(), max)?;
        falls_to_zero(&curves::exponential(steps, min, max).unwrap(), max)?;
        falls_to_zero(&curves::polyexponential(steps, min, max, rho).unwrap(), max)?;
        let laplace = curves::laplace(steps, min, max, 0.0, rho / 10.0).unwrap();
        prop_assert!(laplace.windows(2).all(|pair| pair[0] >= pair[1]));
        prop_assert!(laplace.iter().all(|s| (min * 0.999..=max * 1.001).contains(&f64::from(*s))));
        falls_to_zero(&curves::vp(steps, 19.9, 0.1, 1e-3).unwrap(), 1e3)?;
    }

    #[test]
    fn tables_fall_to_zero_at_any_length(steps in 3usize..100, denoise in 0.3f64..1.0) {
        for (sigmas, max) in [
            (tables::align_your_steps("SD1", steps, denoise), 14.62),
            (tables::align_your_steps("SVD", steps, denoise), 700.0),
            (tables::optimal_steps("Wan", steps, denoise), 1.0),
            (tables::gits(1.2, steps, denoise), 14.62),
        ] {
            falls_to_zero(&sigmas.unwrap(), max)?;
        }
    }

    #[test]
    fn parts_make_the_whole(steps in 1usize..60, at in 0usize..70, denoise in 0.0f64..=1.0) {
        let sigmas = curves::karras(steps, 0.03, 14.6, 7.0).unwrap();
        let (high, low) = edit::split(&sigmas, at);
        if at < sigmas.len() {
            // The level in between ends the one and starts the other.
            prop_assert_eq!(high.last(), low.first());
            prop_assert_eq!(&[high, &low[1..]].concat(), &sigmas);
        }
        let (high, low) = edit::split_denoise(&sigmas, denoise);
        prop_assert!(sigmas.ends_with(low) && (high.is_empty() || sigmas.starts_with(high)));

        let flipped = edit::flip(&sigmas);
        prop_assert!(flipped.windows(2).all(|pair| pair[0] <= pair[1]) && flipped[0] > 0.0);
        prop_assert_eq!(&edit::flip(&flipped)[..steps], &sigmas[..steps]);
    }

    #[test]
    fn inserted_levels_keep_the_others(steps in 1usize..8, start in -1.0f64..20.0, end in 0.0f64..10.0) {
        let sigmas = curves::karras(10, 0.03, 14.6, 7.0).unwrap();
        for spacing in [Spacing::Linear, Spacing::Cosine, Spacing::Sine] {
            let extended = edit::extend_intermediate(&sigmas, steps, start, end, spacing).unwrap();
            prop_assert!(sigmas.iter().all(|s| extended.contains(s)));
            prop_assert!(extended.windows(2).all(|pair| pair[0] >= pair[1]));
            if steps == 1 {
                prop_assert_eq!(&extended, &sigmas);
            }
        }
    }
}
