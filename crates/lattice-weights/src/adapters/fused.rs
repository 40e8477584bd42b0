//! Plain LoRAs on a weight in one pass, by [`lattice_kernels::add_low_rank`]: nothing of the weight's size is made but the result.

use bytes::Bytes;
use lattice_kernels::{LowRank, Weight, add_low_rank};

use super::apply::{Patch, PatchError};
use super::linalg::Matrix;
use super::module::AdapterKind;

/// What one patch does to a weight: `w *= model; w += factor * up * down`.
struct Term {
    model: f32,
    factor: f32,
    up: Matrix,
    down: Matrix,
}

impl Term {
    fn low_rank(&self) -> LowRank<'_> {
        let (up, down) = (&self.up.values, &self.down.values);
        LowRank { model: self.model, factor: self.factor, up, down, rank: self.down.rows }
    }
}

/// The patched weight's bytes in its own type, as [`super::apply_patches`] and rounding to nearest would make them; `None` where that is
/// needed: for other adapters, parts of weights, what does not fit, and types that are not rounded element by element.
///
/// # Errors
/// If an adapter's tensor holds NaN or infinity.
pub(crate) fn patch(weight: &Weight, patches: &[Patch]) -> Result<Option<Bytes>, PatchError> {
    let [rows, rest @ ..] = weight.dims() else { return Ok(None) };
    let (rows, columns) = (*rows, rest.iter().product());
    if !patches.iter().all(|patch| fits(patch, rows, columns)) {
        return Ok(None);
    }
    let terms = patches.iter().filter_map(|patch| term(patch).transpose()).collect::<Result<Vec<_>, _>>()?;
    Ok(add_low_rank(weight, &terms.iter().map(Term::low_rank).collect::<Vec<_>>()))
}

/// Whether a patch is the product of two matrices of the weight's sizes and nothing else.
fn fits(patch: &Patch, rows: usize, columns: usize) -> bool {
    let AdapterKind::Lora { up, down, mid: None, reshape: None } = &patch.adapter.kind else { return false };
    let (up, down) = (up.dims(), down.dims());
    let inner = |dims: &[usize]| dims.iter().skip(1).product::<usize>();
    patch.slice.is_none()
        && !patch.swap_halves
        && patch.adapter.dora_scale.is_none()
        && up.first() == Some(&rows)
        && inner(down) == columns
        && down.first() == Some(&inner(up))
}

fn term(patch: &Patch) -> Result<Option<Term>, PatchError> {
    let AdapterKind::Lora { up, down, .. } = &patch.adapter.kind else { return Ok(None) };
    let (up, down) = (patch.adapter.matrix(up)?, patch.adapter.matrix(down)?);
    let factor = (patch.strength * patch.adapter.scale(down.rows)) as f32;
    Ok(Some(Term { model: patch.model_strength as f32, factor, up, down }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lattice_kernels::StoredDType;
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::{Adapter, apply_patches};
    use crate::rounding::encode;

    fn weight(dtype: StoredDType, shape: &[usize], seed: f32) -> Weight {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
        Weight::new(dtype, shape, encode(&values, dtype).unwrap(), None).unwrap()
    }

    fn lora(rows: usize, rank: usize, columns: &[usize], strength: f64) -> Patch {
        let down: Vec<usize> = [rank].iter().chain(columns).copied().collect();
        let kind = AdapterKind::Lora {
            up: weight(StoredDType::F16, &[rows, rank], 1.0),
            down: weight(StoredDType::F16, &down, 2.0),
            mid: None,
            reshape: None,
        };
        let adapter = Adapter {
            source: "t".into(),
            module: "m".into(),
            kind,
            alpha: Some(rank as f64 / 2.0),
            dora_scale: None,
        };
        Patch { adapter: Arc::new(adapter), strength, model_strength: 1.0, slice: None, swap_halves: false }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Against the general way, over tiles that are whole and tiles that are not.
        #[test]
        fn one_pass_is_what_several_make(
            rows in 1usize..600,
            inputs in 1usize..180,
            kernel in 1usize..4,
            rank in 1usize..9,
            strength in -2f64..2.0,
            model_strength in prop_oneof![Just(1.0), -1f64..1.0],
            stacked: bool,
        ) {
            let columns = [inputs, kernel, 2];
            let mut patches = vec![lora(rows, rank, &columns, strength)];
            patches[0].model_strength = model_strength;
            if stacked {
                patches.push(lora(rows, rank + 1, &columns, 0.5));
            }
            for dtype in [StoredDType::F32, StoredDType::F16, StoredDType::BF16] {
                let base = weight(dtype, &[rows, inputs, kernel, 2], 0.0);
                let (values, shape) = apply_patches(base.to_f32(), base.dims(), &patches).unwrap();
                let got = Weight::new(dtype, shape, patch(&base, &patches).unwrap().unwrap(), None).unwrap();
                // A sum in another order may round to the neighbour.
                let step = match dtype {
                    StoredDType::F16 => 1e-3,
                    StoredDType::BF16 => 8e-3,
                    _ => 1e-6,
                };
                for (g, w) in got.to_f32().iter().zip(&values) {
                    prop_assert!((g - w).abs() <= step * w.abs().max(1.0), "{dtype}: {g} for {w}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_plain_lora_is_left_to_the_general_way() {
        let base = weight(StoredDType::F16, &[6, 4], 0.0);
        let good = lora(6, 2, &[4], 1.0);
        assert!(patch(&base, std::slice::from_ref(&good)).unwrap().is_some());
        let swapped = Patch { swap_halves: true, ..good.clone() };
        let decomposed =
            Adapter { dora_scale: Some(weight(StoredDType::F16, &[6], 0.0)), ..(*good.adapter).clone() };
        let decomposed = Patch { adapter: Arc::new(decomposed), ..good.clone() };
        for odd in [swapped, decomposed, lora(5, 2, &[4], 1.0), lora(6, 2, &[3], 1.0)] {
            assert!(patch(&base, &[good.clone(), odd]).unwrap().is_none());
        }
        let small = weight(StoredDType::F8E4M3, &[6, 4], 0.0);
        assert!(patch(&small, &[good]).unwrap().is_none());
    }
}
