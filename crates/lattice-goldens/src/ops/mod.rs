//! The operations, by topic.

mod adapters;
mod cfg;
mod latent;
mod latent_format;
mod models;
mod noise;
mod pipeline;
mod prompt;
mod samplers;
mod schedules;

use anyhow::Result;

use crate::{Case, Outcome};

/// Runs one case.
pub type Run = fn(&Case<'_>) -> Result<Outcome>;

/// An operation: topic of the set, name of the case's `op` or `kind`, function.
pub type Operation = (&'static str, &'static str, Run);

/// Every operation there is.
pub fn table() -> impl Iterator<Item = &'static Operation> {
    let topics: &[&'static [Operation]] = &[
        adapters::OPERATIONS,
        cfg::OPERATIONS,
        latent::OPERATIONS,
        latent_format::OPERATIONS,
        models::OPERATIONS,
        noise::OPERATIONS,
        pipeline::OPERATIONS,
        prompt::OPERATIONS,
        samplers::OPERATIONS,
        schedules::OPERATIONS,
    ];
    topics.iter().copied().flatten()
}
