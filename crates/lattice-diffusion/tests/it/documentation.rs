//! The page about samplers says what there is and what it costs.

use std::collections::BTreeMap;

use lattice_diffusion::samplers::{SAMPLERS, sampler_named};
use lattice_diffusion::schedules::{SCHEDULERS, Scheduler};

use crate::gaussian::{Case, discrete, flow, zeros};

const PAGE: &str = include_str!("../../../../docs/samplers.md");

/// Rows of the table with this head: the names in its first column, and the other columns.
fn table(first_head: &str) -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let head = format!("| {first_head} |");
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut columns = row.trim_matches('|').split('|').map(str::trim);
        let names = columns.next().unwrap().split(", ").map(|name| name.trim_matches('`')).collect();
        (names, columns.collect())
    })
    .collect()
}

#[test]
fn every_sampler_and_scheduler_is_listed_in_order() {
    let listed = |head| table(head).into_iter().flat_map(|(names, _)| names).collect::<Vec<_>>();
    let mut samplers = listed("sampler");
    let mut known: Vec<_> = SAMPLERS.iter().map(|s| s.name).collect();
    samplers.sort_unstable();
    known.sort_unstable();
    assert_eq!(samplers, known);
    assert_eq!(listed("scheduler"), SCHEDULERS.iter().map(|s| s.name).collect::<Vec<_>>());
}

#[test]
fn calls_per_step_and_noise_are_as_listed() {
    const STEPS: usize = 12;
    let latent = zeros(&[1, 4, 4, 4]);
    let mut listed = BTreeMap::new();
    for (names, columns) in table("sampler") {
        for name in names {
            listed.insert(name, (columns[0], columns[1] == "yes"));
        }
    }
    for model in [discrete(), flow()] {
        let sigmas = Scheduler::named("normal").unwrap().sigmas(&model, STEPS).unwrap();
        for (name, (calls, noisy)) in &listed {
            let sampler = sampler_named(name).unwrap();
            let case = Case {
                model: &model,
                sampler: &*sampler,
                sigmas: &sigmas,
                latent: &latent,
                seed: 1,
                mask: None,
            };
            let mut watcher = Draws::default();
            let (_, total) = case.run_watched(&mut watcher).unwrap();
            if *name != "dpm_adaptive" {
                assert_eq!(total.div_ceil(STEPS), calls.parse::<usize>().unwrap(), "{name}: {total} calls");
            }
            if *noisy {
                assert!(watcher.0 > 0, "{name} draws no noise");
            }
        }
    }
}

/// Counts the noise tensors that a sampler draws.
#[derive(Default)]
struct Draws(usize);

impl lattice_diffusion::samplers::Observer for Draws {
    fn step(
        &mut self,
        _step: &lattice_diffusion::samplers::Step<'_>,
    ) -> lattice_diffusion::samplers::Result<()> {
        Ok(())
    }

    fn noise(&mut self, _noise: &candle_core::Tensor) {
        self.0 += 1;
    }
}
