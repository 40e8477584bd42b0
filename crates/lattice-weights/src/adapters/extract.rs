//! Weight differences as adapter files.

use bytes::Bytes;
use lattice_kernels::{StoredDType, Weight};
use rayon::prelude::*;

use super::linalg::Matrix;
use super::svd::truncated_svd;
use crate::StateDict;
use crate::rounding::encode;

/// Share of the factors' values that are left as they are; larger ones, which a few outliers make, are cut to the largest of these.
const CLAMP_QUANTILE: f64 = 0.99;

/// What to write of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Rank of the low-rank pairs; `None`: matrices are written whole.
    pub rank: Option<usize>,
    /// Whether norms and biases are written too.
    pub vectors: bool,
}

/// Adds to `lora` what `difference` holds, as f16 modules whose names get `prefix`. Tensors without any difference are left out.
pub fn add_modules(lora: &mut StateDict, prefix: &str, difference: &StateDict, options: Difference) {
    let tensors: Vec<(&str, &Weight)> = difference.iter().filter(|(_, w)| w.dtype().is_float()).collect();
    let modules: Vec<Vec<(String, Weight)>> =
        tensors.into_par_iter().map(|(name, weight)| module(name, weight, options)).collect();
    for (name, weight) in modules.into_iter().flatten() {
        lora.insert(format!("{prefix}{name}"), weight);
    }
}

fn module(name: &str, weight: &Weight, options: Difference) -> Vec<(String, Weight)> {
    let (module, suffix) = match (name.strip_suffix(".weight"), name.strip_suffix(".bias")) {
        (Some(module), _) => (module, ".diff"),
        (_, Some(module)) => (module, ".diff_b"),
        _ => return Vec::new(),
    };
    let is_matrix = suffix == ".diff" && weight.dims().len() >= 2;
    if !is_matrix && !options.vectors {
        return Vec::new();
    }
    let values = weight.to_f32();
    if values.iter().all(|&v| v == 0.0) {
        return Vec::new();
    }
    let tensors = match options.rank.filter(|_| is_matrix) {
        None => vec![(suffix, half(&values, weight.dims()))],
        Some(rank) => pair(values, weight.dims(), rank),
    };
    tensors.into_iter().filter_map(|(suffix, weight)| Some((format!("{module}{suffix}"), weight?))).collect()
}

/// The best product of two matrices of the given rank: singular values go to the first.
fn pair(values: Vec<f32>, shape: &[usize], rank: usize) -> Vec<(&'static str, Option<Weight>)> {
    let rows = shape[0];
    let columns = shape[1..].iter().product();
    let svd = truncated_svd(&Matrix { rows, columns, values }, rank);
    let (mut up, mut down) = (svd.left, svd.right);
    for row in up.values.chunks_exact_mut(svd.singular.len().max(1)) {
        for (v, s) in row.iter_mut().zip(&svd.singular) {
            *v *= s;
        }
    }
    let bound = quantile(up.values.iter().chain(&down.values).copied().collect());
    for v in up.values.iter_mut().chain(&mut down.values) {
        *v = v.clamp(-bound, bound);
    }
    let units = vec![1; shape.len().saturating_sub(2)];
    let up_shape = [&[rows, up.columns][..], &units].concat();
    let down_shape = [&[down.rows][..], &shape[1..]].concat();
    vec![
        (".lora_up.weight", half(&up.values, &up_shape)),
        (".lora_down.weight", half(&down.values, &down_shape)),
    ]
}

/// The value below which [`CLAMP_QUANTILE`] of the values lie, interpolated between neighbours; never negative.
fn quantile(mut values: Vec<f32>) -> f32 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = CLAMP_QUANTILE * last as f64;
    let low = place as usize;
    let (_, &mut at, above) = values.select_nth_unstable_by(low, f32::total_cmp);
    let next = above.iter().copied().min_by(f32::total_cmp).unwrap_or(at);
    (at + (next - at) * (place - low as f64) as f32).max(0.0)
}

fn half(values: &[f32], shape: &[usize]) -> Option<Weight> {
    let bytes: Bytes = encode(values, StoredDType::F16)?;
    Weight::new(StoredDType::F16, shape, bytes, None).ok()
}
