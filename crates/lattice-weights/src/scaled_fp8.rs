//! Scaled 8-bit floats: a marker tensor `scaled_fp8` and, per linear layer, an f32 `scale_weight` its weight is multiplied by.
//!
//! In memory the scale is part of the [`Weight`] and the extra tensors are gone (the marker stays, it tells the layout);
//! in files they stand beside each other.

use bytes::Bytes;
use lattice_kernels::{StoredDType, Weight};

use crate::StateDict;
use crate::error::{Cause, FileError};

const MARKER: &str = "scaled_fp8";
const SCALE: &str = ".scale_weight";
/// Factor for the layer's input when it is multiplied in 8 bits too, which is never done here.
const INPUT_SCALE: &str = ".scale_input";

fn is_fp8(dtype: StoredDType) -> bool {
    matches!(dtype, StoredDType::F8E4M3 | StoredDType::F8E5M2)
}

pub(crate) fn is_marker(name: &str) -> bool {
    name.strip_suffix(MARKER).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

/// Moves the scales into the weights they belong to.
pub(crate) fn resolve(dict: StateDict) -> Result<StateDict, FileError> {
    if !dict.iter().any(|(name, _)| name.ends_with(SCALE)) {
        return Ok(dict);
    }
    let marked = dict.iter().any(|(name, _)| is_marker(name));
    let mut out =
        StateDict::new(dict.source(), indexmap::IndexMap::with_capacity(dict.len()), dict.metadata().clone());
    // A layer's tensors that the scales below it change or use up.
    let scaled = |layer: &str| {
        let weight = dict.get(&format!("{layer}.weight"))?;
        let scale = dict.get(&format!("{layer}{SCALE}"))?;
        (marked || is_fp8(weight.dtype())).then_some(scale)
    };
    for (name, weight) in dict.iter() {
        let used_up =
            [SCALE, INPUT_SCALE].iter().any(|s| name.strip_suffix(s).is_some_and(|l| scaled(l).is_some()));
        if used_up {
            continue;
        }
        let weight = match name.strip_suffix(".weight").and_then(scaled) {
            Some(scale) => with_scale(weight, scale).map_err(|cause| cause.at(dict.source(), name))?,
            None => weight.clone(),
        };
        out.insert(name, weight);
    }
    Ok(out)
}

fn with_scale(weight: &Weight, scale: &Weight) -> Result<Weight, Cause> {
    if scale.elem_count() != 1 || !scale.dtype().is_float() {
        return Err(Cause::malformed(
            "scale_weight",
            format!("one number is needed, found {} of shape {:?}", scale.dtype(), scale.dims()),
        ));
    }
    let mut value = [0f32];
    scale.read_f32(0, &mut value);
    Weight::new(weight.dtype(), weight.shape().clone(), weight.bytes().clone(), Some(value[0]))
        .map_err(|e| Cause::malformed("tensor", e))
}

/// The tensors as a file holds them: scales as tensors of their own, with a marker if there is none.
pub(crate) fn split(dict: &StateDict) -> Vec<(String, Weight)> {
    split_where(dict, |_| true)
}

/// The same where `keeps` says of each weight whether its scale is to stand beside it.
pub(crate) fn split_where(dict: &StateDict, keeps: impl Fn(&Weight) -> bool) -> Vec<(String, Weight)> {
    let mut out = Vec::with_capacity(dict.len());
    let (mut scales, mut marked) = (false, false);
    for (name, weight) in dict.iter() {
        marked |= is_marker(name);
        out.push((name.to_owned(), weight.clone()));
        if let Some(scale) = weight.scale().filter(|_| keeps(weight)) {
            scales = true;
            let layer = name.strip_suffix(".weight").unwrap_or(name);
            out.extend(plain(&[1], &[scale]).map(|w| (format!("{layer}{SCALE}"), w)));
        }
    }
    if scales && !marked {
        // An f32 marker means e4m3; its value does not count.
        out.extend(plain(&[0], &[]).map(|w| (MARKER.to_owned(), w)));
    }
    out
}

fn plain(shape: &[usize], values: &[f32]) -> Option<Weight> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Weight::new(StoredDType::F32, shape, Bytes::from(bytes), None).ok()
}
