//! Batches of latents.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::latent;
use lattice_graph::Node;
use lattice_media::batch;
use lattice_media::resize::{Crop, Method, common_upscale};

use crate::node::node;
use crate::types::Latent;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        latent_batch,
        latent_batch_seed_behavior,
        repeat_latent_batch,
        latent_from_batch,
        rebatch_latents,
    ]
}

/// The latent's noise indices, 0, 1, ... where it has none.
fn indices(latent: &Latent) -> Result<Vec<usize>> {
    Ok(match &latent.batch_index {
        Some(index) => index.to_vec(),
        None => (0..latent.samples.dim(0)?).collect(),
    })
}

/// Puts two batches of latents into one. The second is resized to the first.
#[node(name = "LatentBatch", category = "latent/batch", module = "comfy_extras.nodes_latent", v3)]
fn latent_batch(#[widget] samples1: Latent, #[widget] samples2: Latent) -> Result<Latent> {
    let second = latent::resized_to(&samples2.samples, &samples1.samples)?;
    let joined = Tensor::cat(&[&samples1.samples, &second], 0)?;
    let index = [indices(&samples1)?, indices(&samples2)?].concat();
    Ok(Latent { batch_index: Some(index.into()), ..samples1.with_samples(joined) })
}

/// Chooses whether the items of a batch get noises of their own or all the same.
#[node(
    name = "LatentBatchSeedBehavior",
    category = "latent/advanced",
    module = "comfy_extras.nodes_latent",
    v3
)]
fn latent_batch_seed_behavior(
    #[widget] samples: Latent,
    #[combo("random", "fixed")]
    #[widget(default = "fixed")]
    seed_behavior: &str,
) -> Result<Latent> {
    let batch_index = if seed_behavior == "fixed" {
        let first = samples.batch_index.as_ref().and_then(|index| index.first()).copied().unwrap_or(0);
        Some(vec![first; samples.samples.dim(0)?].into())
    } else {
        None
    };
    Ok(Latent { batch_index, ..samples })
}

/// Repeats a whole batch.
#[node(
    name = "RepeatLatentBatch",
    title = "Repeat Latent Batch",
    category = "latent/batch",
    module = "nodes"
)]
fn repeat_latent_batch(
    samples: Latent,
    #[widget(default = 1, min = 1, max = 64)] amount: usize,
) -> Result<Latent> {
    let n = samples.samples.dim(0)?;
    let noise_mask = match &samples.noise_mask {
        Some(mask) if mask.dim(0)? > 1 => Some(batch::repeat(&batch::fit(mask, n)?, amount)?),
        mask => mask.clone(),
    };
    let batch_index = samples.batch_index.as_deref().map(|i| latent::repeat_index(i, amount).into());
    Ok(Latent { samples: batch::repeat(&samples.samples, amount)?, noise_mask, batch_index, ..samples })
}

/// Takes latents out of a batch; they keep the noises they would have had in it.
#[node(name = "LatentFromBatch", title = "Latent From Batch", category = "latent/batch", module = "nodes")]
fn latent_from_batch(
    samples: Latent,
    #[widget(default = 0, min = 0, max = 63)] batch_index: usize,
    #[widget(default = 1, min = 1, max = 64)] length: usize,
) -> Result<Latent> {
    let n = samples.samples.dim(0)?;
    let (start, length) = batch::range(n, batch_index, length);
    let noise_mask = match &samples.noise_mask {
        Some(mask) if mask.dim(0)? > 1 => Some(batch::fit(mask, n)?.narrow(0, start, length)?),
        mask => mask.clone(),
    };
    let index = indices(&samples)?.into_iter().skip(start).take(length).collect();
    let items = samples.samples.narrow(0, start, length)?;
    Ok(Latent { samples: items, noise_mask, batch_index: Some(index), ..samples })
}

/// One latent of a batch with what belongs to it.
struct Item {
    samples: Tensor,
    mask: Option<Tensor>,
    index: usize,
    kind: Option<&'static str>,
}

/// Deals the latents of a list out into batches of one size. Latents of different sizes never share a batch.
#[node(
    name = "RebatchLatents",
    title = "Rebatch Latents",
    category = "latent/batch",
    module = "comfy_extras.nodes_rebatch",
    v3,
    input_is_list
)]
fn rebatch_latents(
    #[widget] latents: Vec<Latent>,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Vec<Latent>> {
    let mut items: Vec<Item> = Vec::new();
    for latent in &latents {
        let before = items.len();
        let n = latent.samples.dim(0)?;
        let mask = latent.noise_mask.as_ref().map(|mask| pixel_mask(mask, &latent.samples)).transpose()?;
        for i in 0..n {
            let index = latent.batch_index.as_ref().and_then(|index| index.get(i).copied());
            items.push(Item {
                samples: latent.samples.narrow(0, i, 1)?,
                mask: mask.as_ref().map(|mask| mask.narrow(0, i, 1)).transpose()?,
                index: index.unwrap_or(before + i),
                kind: latent.kind,
            });
        }
    }
    let same = |a: &Item, b: &Item| a.samples.dims() == b.samples.dims();
    let groups = items.chunk_by(same).flat_map(|group| group.chunks(batch_size.max(1)));
    groups.map(joined).collect()
}

/// A noise mask at the size of the pixels, one for each item.
fn pixel_mask(mask: &Tensor, samples: &Tensor) -> Result<Tensor> {
    let [n, .., h, w] = *samples.dims() else {
        return Err(Error::value(format!("a latent of shape {:?} has no height and width", samples.dims())));
    };
    let mask = mask.reshape(((), 1, mask.dim(mask.rank() - 2)?, mask.dim(mask.rank() - 1)?))?;
    let mask = common_upscale(&mask, w * 8, h * 8, Method::Bilinear, Crop::Disabled)?;
    Ok(batch::fit(&mask, n)?)
}

fn joined(items: &[Item]) -> Result<Latent> {
    let samples: Vec<&Tensor> = items.iter().map(|item| &item.samples).collect();
    let masks = if items.iter().any(|item| item.mask.is_some()) {
        let whole = |item: &Item| {
            let [.., h, w] = *item.samples.dims() else { return item.samples.ones_like() };
            Tensor::ones((1, 1, h * 8, w * 8), item.samples.dtype(), item.samples.device())
        };
        let mask = |item: &Item| item.mask.clone().map_or_else(|| whole(item), Ok);
        Some(Tensor::cat(&items.iter().map(mask).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    } else {
        None
    };
    Ok(Latent {
        samples: Tensor::cat(&samples, 0)?,
        noise_mask: masks,
        batch_index: Some(items.iter().map(|item| item.index).collect()),
        kind: items.first().and_then(|item| item.kind),
    })
}
