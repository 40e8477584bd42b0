//! Lists of entries against one latent: areas in cells, masks at its size, times as noise levels, model inputs.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::area::Cells;
use super::{Conditioning, ControlHint, GroundingHint, Hook, Options};
use crate::model::{ListRole, ModelInputs, NoiseModel, Run};

/// An entry that is ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the model is given.
    pub(super) inputs: ModelInputs,
    pub(super) area: Option<Cells>,
    /// [n, h, w] at the latent's size.
    pub(super) mask: Option<Tensor>,
    pub(super) mask_strength: f64,
    pub(super) strength: f64,
    /// Highest noise level at which it applies.
    pub(super) start_sigma: Option<f64>,
    /// Lowest.
    pub(super) end_sigma: Option<f64>,
    /// Highest noise level of the part that its text was encoded for, and the level at which the next part starts.
    pub(super) text_range: Option<(f64, f64)>,
    pub(super) default: bool,
    pub(super) hooks: Vec<Hook>,
    pub(super) control: Option<ControlHint>,
    pub(super) grounding: Option<Arc<GroundingHint>>,
}

impl Resolved {
    /// Whether it applies at a noise level. The comparison is single precision, like the levels of a schedule.
    pub(super) fn is_active(&self, sigma: f64) -> bool {
        let sigma = sigma as f32;
        let below_start = self.start_sigma.is_none_or(|start| sigma <= start as f32);
        let in_text_range =
            self.text_range.is_none_or(|(start, end)| sigma <= start as f32 && sigma > end as f32);
        in_text_range && below_start && self.end_sigma.is_none_or(|end| sigma >= end as f32)
    }
}

/// Resolves the lists of one run, in the order in which a guider sets them (positive first, negative last).
///
/// Every entry with an area gets a counterpart of the same area in each other list, so that a regional prompt is
/// guided against what the other list says there. Control networks of the first list that ask for it, and its texts in boxes,
/// are lent to the others.
///
/// # Errors
/// If an entry's tensors do not fit the model.
pub fn resolve_lists(
    model: &dyn NoiseModel,
    lists: &[(ListRole, &Conditioning)],
    run: &Run,
) -> Result<Vec<Vec<Resolved>>> {
    let mut resolved = Vec::with_capacity(lists.len());
    for (role, list) in lists {
        let entries = list.iter().map(|entry| {
            let inputs = model.resolve(entry, *role, run)?;
            resolve_options(&entry.options, inputs, model, run)
        });
        resolved.push(entries.collect::<Result<Vec<_>>>()?);
    }
    for list in 0..resolved.len() {
        for entry in 0..resolved[list].len() {
            for other in (0..resolved.len()).filter(|&other| other != list) {
                let counterpart = counterpart(&resolved[list][entry], &resolved[other]);
                resolved[other].extend(counterpart);
            }
        }
    }
    let asking = |e: &Resolved| e.control.clone().filter(|c| c.apply_to_uncond);
    lend(&mut resolved, asking, |e| &mut e.control);
    lend(&mut resolved, |e| e.grounding.clone(), |e| &mut e.grounding);
    Ok(resolved)
}

fn resolve_options(
    options: &Options,
    inputs: ModelInputs,
    model: &dyn NoiseModel,
    run: &Run,
) -> Result<Resolved> {
    let dims = run.spatial();
    let mask = options.mask.as_ref().map(|mask| resize_mask(mask, dims)).transpose()?;
    let bounds = match &mask {
        Some(mask) if options.set_area_to_bounds => Some(super::Area::Cells(Cells::bounds(mask)?)),
        _ => None,
    };
    let sigma = |percent: f64| model.sampling().percent_to_sigma(percent);
    Ok(Resolved {
        inputs,
        area: bounds.as_ref().or(options.area.as_ref()).map(|area| area.resolve(dims)),
        mask,
        mask_strength: options.mask_strength,
        strength: options.strength,
        start_sigma: options.start_percent.map(sigma),
        end_sigma: options.end_percent.map(sigma),
        // The last part has no next one.
        text_range: options
            .text_range
            .map(|(start, end)| (sigma(start), if end < 1.0 { sigma(end) } else { -1.0 })),
        default: options.default,
        hooks: options.hooks.clone(),
        control: options.control.clone(),
        grounding: options.grounding.clone(),
    })
}

/// A mask [n, h, w] or [h, w] (or with a channel axis of 1) at the latent's rows and columns, f32 [n, h, w].
fn resize_mask(mask: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let &[.., height, width] = dims else {
        candle_core::bail!("a mask needs a latent with rows and columns")
    };
    let (h, w) = match *mask.dims() {
        [.., h, w] if h > 0 && w > 0 && mask.elem_count() > 0 => (h, w),
        _ => candle_core::bail!("a mask of shape {:?} has no rows and columns", mask.shape()),
    };
    let mask = mask.to_dtype(DType::F32)?.reshape(((), 1, h, w))?;
    let mask = if (h, w) == (height, width) { mask } else { mask.upsample_bilinear2d(height, width, false)? };
    mask.squeeze(1)
}

/// What `entry` needs beside it in another list: a copy of it with the model inputs of the entry that covers its area
/// there. The smallest covering area goes before entries without area. None if there is nothing to pair with or the
/// pair is there already.
fn counterpart(entry: &Resolved, list: &[Resolved]) -> Option<Resolved> {
    let area = entry.area.as_ref()?;
    let covering = list.iter().filter_map(|e| e.area.as_ref().filter(|a| a.contains(area)).map(|a| (a, e)));
    let found = match covering.min_by_key(|(a, _)| a.volume()) {
        Some((a, _)) if a == area => return None,
        Some((_, found)) => found,
        None => list.iter().find(|e| e.area.is_none())?,
    };
    Some(Resolved { inputs: found.inputs.clone(), ..entry.clone() })
}

/// Hands what entries of the first list without area have to those of the other lists, in turn, unless one there has its own.
fn lend<T: Clone>(
    lists: &mut [Vec<Resolved>],
    lent: impl Fn(&Resolved) -> Option<T>,
    place: impl Fn(&mut Resolved) -> &mut Option<T>,
) {
    let Some((first, others)) = lists.split_first_mut() else { return };
    let lent: Vec<T> = first.iter().filter(|e| e.area.is_none()).filter_map(lent).collect();
    if lent.is_empty() {
        return;
    }
    for list in others {
        let mut takers: Vec<_> = list.iter_mut().filter(|e| e.area.is_none()).map(&place).collect();
        if takers.iter().any(|taker| taker.is_some()) {
            continue;
        }
        for (taker, lent) in takers.iter_mut().zip(lent.iter().cycle()) {
            **taker = Some(lent.clone());
        }
    }
}
