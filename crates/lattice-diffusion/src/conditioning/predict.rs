//! From lists of entries to one prediction per list.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use lattice_models::ForwardOptions;

use super::area::Cells;
use super::{ActiveHook, ControlHint, HookState, Resolved};
use crate::model::{Call, ModelInputs, NoiseModel};

/// Keeps the division by a total weight of zero finite.
const TINY: f32 = 1e-37;

/// A list to be evaluated.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// Its entries.
    pub entries: &'a [Resolved],
    /// How the network works for them. Lists share calls only if they share these.
    pub options: &'a ForwardOptions,
}

/// One entry about to be evaluated.
struct Job<'a> {
    list: usize,
    entry: &'a Resolved,
    options: &'a ForwardOptions,
    hooks: Vec<ActiveHook>,
    area: Option<Cells>,
    /// [B, 1, spatial...] of the crop; None is 1 everywhere.
    weight: Option<Tensor>,
    crop: Tensor,
}

/// The weighted mean of the predictions of every list's active entries,
/// `P = (sum_i w_i D_i) / (1e-37 + sum_i w_i)`, each term at its area. Lists given as None are not evaluated and give
/// zeros, as do lists without an active entry.
///
/// Entries of equal crop and compatible inputs, of whatever list, share a model call as far as the model's memory
/// allows.
///
/// # Errors
/// Whatever the model fails with.
pub fn predict_lists(
    model: &dyn NoiseModel,
    hooks: &HookState,
    lists: &[Option<List<'_>>],
    x: &Tensor,
    sigma: f64,
) -> Result<Vec<Tensor>> {
    let dims = &x.dims()[2..];
    let mut jobs = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        if let Some(list) = list {
            jobs.extend(list_jobs(index, *list, x, sigma)?);
        }
    }
    for job in &mut jobs {
        job.hooks = hooks.active(&job.entry.hooks, model.sampling(), sigma);
    }
    let mut sums: Vec<Option<(Tensor, Option<Tensor>)>> = vec![None; lists.len()];
    for group in groups(model, &jobs) {
        let predictions = match group[0].hooks.as_slice() {
            [] => evaluate(model, &group, sigma)?,
            active => evaluate(hooks.model(model, active)?.as_ref(), &group, sigma)?,
        };
        for (job, prediction) in group.iter().zip(predictions) {
            add(&mut sums[job.list], job, prediction, dims)?;
        }
    }
    let mean = |sum: Option<(Tensor, Option<Tensor>)>| match sum {
        None => x.zeros_like(),
        Some((sum, None)) => Ok(sum),
        Some((sum, Some(total))) => sum.broadcast_div(&(total + f64::from(TINY))?),
    };
    sums.into_iter().map(mean).collect()
}

/// Crops and weights of a list's active entries; default entries take the weight that the others leave.
fn list_jobs<'a>(list: usize, evaluated: List<'a>, x: &Tensor, sigma: f64) -> Result<Vec<Job<'a>>> {
    let List { entries, options } = evaluated;
    let dims = &x.dims()[2..];
    let active = || entries.iter().filter(|e| e.is_active(sigma));
    let clip = |entry: &Resolved| entry.area.as_ref().map(|area| area.clip(dims));
    let mut jobs = Vec::new();
    for entry in active().filter(|e| !e.default) {
        // An area that lies outside of the latent applies nowhere.
        let area = match clip(entry) {
            Some(None) => continue,
            area => area.flatten(),
        };
        let crop = area.as_ref().map_or_else(|| Ok(x.clone()), |area| area.crop(x))?;
        let weight = entry_weight(entry, area.as_ref(), x)?;
        jobs.push(Job { list, entry, options, hooks: Vec::new(), area, weight, crop });
    }
    if active().any(|e| e.default) {
        let left = weight_left(&jobs, x)?;
        if left.max_all()?.to_vec0::<f32>()? > 0.0 {
            for entry in active().filter(|e| e.default) {
                let area = match clip(entry) {
                    Some(None) => continue,
                    area => area.flatten(),
                };
                let crop = |t: &Tensor| area.as_ref().map_or_else(|| Ok(t.clone()), |area| area.crop(t));
                let (weight, crop) = (Some(crop(&left)?), crop(x)?);
                jobs.push(Job { list, entry, options, hooks: Vec::new(), area, weight, crop });
            }
        }
    }
    Ok(jobs)
}

/// max(0, 1 - sum of the weights), [B, 1, spatial...].
fn weight_left(jobs: &[Job<'_>], x: &Tensor) -> Result<Tensor> {
    let dims = &x.dims()[2..];
    let mut left = Tensor::ones(weight_shape(x.dim(0)?, dims), DType::F32, x.device())?;
    for job in jobs {
        left = (left - placed_weight(job, dims)?)?;
    }
    left.relu()
}

fn weight_shape(batch: usize, dims: &[usize]) -> Vec<usize> {
    [&[batch, 1], dims].concat()
}

/// Weight of an entry over its crop; None is 1 everywhere.
fn entry_weight(entry: &Resolved, area: Option<&Cells>, x: &Tensor) -> Result<Option<Tensor>> {
    let (batch, dims) = (x.dim(0)?, &x.dims()[2..]);
    let device = x.device();
    if let Some(mask) = &entry.mask {
        let scale = entry.mask_strength * entry.strength;
        // [n, h, w] to [B, 1, (frames of 1,) h, w].
        let mask = repeat_batch(&(mask.to_device(device)? * scale)?, batch)?;
        let mut shape = vec![1; dims.len() + 2];
        shape[0] = batch;
        let (h, w) = (mask.dim(1)?, mask.dim(2)?);
        let n = shape.len();
        (shape[n - 2], shape[n - 1]) = (h, w);
        let weight = mask.reshape(shape)?.broadcast_as(weight_shape(batch, dims))?.contiguous()?;
        return Ok(Some(area.map_or_else(|| Ok(weight.clone()), |area| area.crop(&weight))?));
    }
    let Some(area) = area else {
        let plain = entry.strength == 1.0;
        let weight = || Tensor::full(entry.strength as f32, weight_shape(batch, dims), device);
        return if plain { Ok(None) } else { weight().map(Some) };
    };
    let mut weight = Tensor::full(entry.strength as f32, weight_shape(batch, &area.size), device)?;
    for (axis, ramp) in (2..).zip(area.feather(dims)) {
        let mut shape = vec![1; dims.len() + 2];
        shape[axis] = ramp.len();
        weight = weight.broadcast_mul(&Tensor::from_vec(ramp, shape, device)?)?;
    }
    Ok(Some(weight))
}

fn placed_weight(job: &Job<'_>, dims: &[usize]) -> Result<Tensor> {
    let weight = match &job.weight {
        Some(weight) => weight.clone(),
        None => Tensor::ones(
            weight_shape(job.crop.dim(0)?, &job.crop.dims()[2..]),
            DType::F32,
            job.crop.device(),
        )?,
    };
    job.area.as_ref().map_or_else(|| Ok(weight.clone()), |area| area.place(&weight, dims))
}

/// Adds a prediction to its list's sum and total weight. A lone entry of weight 1 needs no total.
fn add(
    sum: &mut Option<(Tensor, Option<Tensor>)>,
    job: &Job<'_>,
    prediction: Tensor,
    dims: &[usize],
) -> Result<()> {
    let term = match &job.weight {
        Some(weight) => prediction.broadcast_mul(weight)?,
        None => prediction,
    };
    let term = job.area.as_ref().map_or_else(|| Ok(term.clone()), |area| area.place(&term, dims))?;
    *sum = Some(match sum.take() {
        None if job.weight.is_none() => (term, None),
        None => (term, Some(placed_weight(job, dims)?)),
        Some((sum, total)) => {
            let weight = placed_weight(job, dims)?;
            let total = match total {
                Some(total) => (total + weight)?,
                None => (weight + 1.0)?,
            };
            ((sum + term)?, Some(total))
        }
    });
    Ok(())
}

/// Jobs that can share a model call, in the order of their first members.
fn groups<'a, 'b>(model: &dyn NoiseModel, jobs: &'b [Job<'a>]) -> Vec<Vec<&'b Job<'a>>> {
    let mut groups: Vec<Vec<&Job<'_>>> = Vec::new();
    for job in jobs {
        let open = groups.iter_mut().find(|group| {
            let first = group[0];
            let rows = (group.len() + 1) * job.crop.dims()[0];
            let shape = [&[rows], &job.crop.dims()[1..]].concat();
            first.crop.dims() == job.crop.dims()
                && std::ptr::eq(first.options, job.options)
                && first.hooks == job.hooks
                && same_control(first.entry.control.as_ref(), job.entry.control.as_ref())
                && same(first.entry.grounding.as_ref(), job.entry.grounding.as_ref())
                && group.iter().all(|member| {
                    member.entry.inputs.is_compatible(&job.entry.inputs, model.context_repeats())
                })
                && model.fits_in_memory(&shape)
        });
        match open {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    groups
}

fn same_control(a: Option<&ControlHint>, b: Option<&ControlHint>) -> bool {
    same(a.map(|a| &a.source), b.map(|b| &b.source))
}

/// Whether both are one, or none.
fn same<T: ?Sized>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// One model call for a group; its predictions in order.
fn evaluate(model: &dyn NoiseModel, group: &[&Job<'_>], sigma: f64) -> Result<Vec<Tensor>> {
    let batch = group[0].crop.dim(0)?;
    let inputs = group.iter().map(|job| {
        let inputs = job.entry.inputs.repeated(batch)?;
        match (&job.area, &inputs.concat) {
            (Some(area), Some(concat)) => {
                let concat = Some(area.crop(concat)?);
                Ok(ModelInputs { concat, ..inputs })
            }
            _ => Ok(inputs),
        }
    });
    let inputs = ModelInputs::join(&inputs.collect::<Result<Vec<_>>>()?)?;
    let crops: Vec<&Tensor> = group.iter().map(|job| &job.crop).collect();
    let x = if let [only] = crops[..] { only.clone() } else { Tensor::cat(&crops, 0)? };
    let control = group[0].entry.control.as_ref().map(|c| c.source.as_ref());
    let grounding = group[0].entry.grounding.as_deref();
    let call = Call { control, grounding, entries: group.len(), options: group[0].options };
    let denoised = model.denoised(&x, sigma, &inputs, call)?;
    (0..group.len()).map(|i| denoised.narrow(0, i * batch, batch)?.contiguous()).collect()
}

/// The first `batch` items, repeated in turn as far as there are fewer.
pub(crate) fn repeat_batch(t: &Tensor, batch: usize) -> Result<Tensor> {
    let n = t.dim(0)?;
    if n == 0 {
        candle_core::bail!("a conditioning tensor is empty")
    }
    if n >= batch {
        return t.narrow(0, 0, batch);
    }
    let copies = vec![t; batch.div_ceil(n)];
    Tensor::cat(&copies, 0)?.narrow(0, 0, batch)
}
