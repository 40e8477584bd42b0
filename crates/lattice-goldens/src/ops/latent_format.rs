//! Scales of latents, and previews.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use lattice_diffusion::latent_format::LatentFormat;

use super::Operation;
use crate::{Case, Check, Outcome};

/// Operations of topic `latent` that belong to formats.
pub(super) const OPERATIONS: &[Operation] = &[("latent", "latent_format", latent_format)];

fn latent_format(case: &Case<'_>) -> Result<Outcome> {
    let format = LatentFormat::named(case.str("format")?).context("no such latent format")?;
    let x = case.tensor("x")?;
    let close = |name: &str, got: Tensor| Check::close(name, &got, &case.tensor(name)?, 1e-6, 2e-6);
    let mut checks =
        vec![close("process_in", format.process_in(&x)?)?, close("process_out", format.process_out(&x)?)?];
    // Formats of sound and shapes have none.
    if case.has_tensor("preview") {
        let preview = format.preview(&x)?.context("no preview")?;
        let wanted = case.tensor("preview")?.to_dtype(DType::F32)?;
        let rgb: Vec<f32> = preview.rgb.iter().map(|&v| f32::from(v)).collect();
        let got = Tensor::from_vec(rgb, (preview.height, preview.width, 3), &Device::Cpu)?;
        checks.push(Check::close("preview", &got.reshape(wanted.shape())?, &wanted, 1.0, 0.0)?);
    }
    Ok(Outcome::Ran(checks))
}
