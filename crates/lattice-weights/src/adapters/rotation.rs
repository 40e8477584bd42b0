//! Changes that rotate output rows: OFT (arXiv 2306.07280) and its butterfly form BOFT (arXiv 2311.06243).

use lattice_kernels::Weight;

use super::apply::{Parameter, PatchError};
use super::linalg::{Matrix, multiply_add};
use super::module::Adapter;

/// Cayley transform of skew blocks: R = (I + Q)(I - Q)^-1 with Q = B - B^T, shrunk so that the norm of all blocks together stays
/// within the adapter's constraint (`alpha`, if positive).
fn rotations(adapter: &Adapter, blocks: &[f32], size: usize) -> Option<Vec<Matrix>> {
    let mut skew: Vec<Matrix> = blocks
        .chunks_exact(size.checked_mul(size).filter(|&n| n > 0)?)
        .map(|b| {
            let mut q = Matrix::zeros(size, size);
            for (i, v) in q.values.iter_mut().enumerate() {
                let (row, column) = (i / size, i % size);
                *v = b[row * size + column] - b[column * size + row];
            }
            q
        })
        .collect();
    let constraint = adapter.alpha.unwrap_or(0.0);
    if constraint > 0.0 {
        let norm =
            skew.iter().flat_map(|q| &q.values).map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() + 1e-8;
        if norm > constraint {
            let factor = (constraint / norm) as f32;
            skew.iter_mut().flat_map(|q| &mut q.values).for_each(|v| *v *= factor);
        }
    }
    let identity = Matrix::identity(size);
    skew.iter()
        .map(|q| {
            let shifted = |sign: f32| {
                let mut m = identity.clone();
                m.values.iter_mut().zip(&q.values).for_each(|(m, q)| *m += sign * q);
                m
            };
            shifted(1.0).multiply(&shifted(-1.0).inverse()?)
        })
        .collect()
}

/// D = s (R - I)^T W per block of output rows.
pub(super) fn oft(
    adapter: &Adapter,
    w: &Parameter,
    blocks: &Weight,
    strength: f64,
) -> Result<Vec<f32>, PatchError> {
    let misfit = || adapter.misfit(&w.shape, format!("its blocks are {:?}", blocks.dims()));
    let [count, size, columns] = *blocks.dims() else { return Err(misfit()) };
    if size != columns || count.checked_mul(size) != Some(w.rows()) {
        return Err(misfit());
    }
    let s = strength as f32;
    let mut delta = vec![0f32; w.values.len()];
    let block = (size * w.columns()).max(1);
    let rotations = rotations(adapter, &adapter.read(blocks)?, size).ok_or_else(misfit)?;
    for ((mut r, rows), out) in
        rotations.into_iter().zip(w.values.chunks_exact(block)).zip(delta.chunks_exact_mut(block))
    {
        for (i, v) in r.values.iter_mut().enumerate() {
            *v = *v * s - if i / size == i % size { s } else { 0.0 };
        }
        let rows = Matrix { rows: size, columns: w.columns(), values: rows.to_vec() };
        multiply_add(out, &r.transposed(), &rows, 1.0).ok_or_else(misfit)?;
    }
    Ok(delta)
}

/// D = (product of the butterfly factors) W - W.
pub(super) fn boft(
    adapter: &Adapter,
    w: &Parameter,
    blocks: &Weight,
    rescale: Option<&Weight>,
    strength: f64,
) -> Result<Vec<f32>, PatchError> {
    let misfit = || adapter.misfit(&w.shape, format!("its blocks are {:?}", blocks.dims()));
    let [factors, count, size, columns] = *blocks.dims() else { return Err(misfit()) };
    let rows = w.rows();
    if size != columns || size % 2 != 0 || size == 0 || count.checked_mul(size) != Some(rows) {
        return Err(misfit());
    }
    if adapter.alpha.is_none() {
        return Err(adapter.misfit(&w.shape, "a BOFT module needs its alpha".into()));
    }
    let rotations = rotations(adapter, &adapter.read(blocks)?, size).ok_or_else(misfit)?;
    let width = w.columns();
    let mut current = w.values.clone();
    for factor in 0..factors {
        // Rows are taken in groups of two halves with 2^factor * size/2 rows each; a block holds partners from both.
        let half = 1usize
            .checked_shl(factor as u32)
            .and_then(|n| n.checked_mul(size / 2))
            .filter(|half| half.checked_mul(2).is_some_and(|group| rows.is_multiple_of(group)))
            .ok_or_else(misfit)?;
        let order: Vec<usize> =
            (0..rows).map(|i| i / (2 * half) * (2 * half) + i % 2 * half + i % (2 * half) / 2).collect();
        let mut gathered: Vec<f32> =
            order.iter().flat_map(|&row| &current[row * width..(row + 1) * width]).copied().collect();
        let block = (size * width).max(1);
        for (index, rows) in gathered.chunks_exact_mut(block).enumerate() {
            let r = interpolated(&rotations[factor * count + index], strength);
            let old = Matrix { rows: size, columns: width, values: rows.to_vec() };
            rows.fill(0.0);
            multiply_add(rows, &r, &old, 1.0).ok_or_else(misfit)?;
        }
        for (&row, values) in order.iter().zip(gathered.chunks_exact(width.max(1))) {
            current[row * width..(row + 1) * width].copy_from_slice(values);
        }
    }
    if let Some(rescale) = rescale {
        let factors = adapter.read(rescale)?;
        if factors.len() != rows && factors.len() != 1 {
            return Err(misfit());
        }
        for (row, values) in current.chunks_exact_mut(width.max(1)).enumerate() {
            let factor = factors[row % factors.len()];
            for v in values {
                *v *= factor;
            }
        }
    }
    current.iter_mut().zip(&w.values).for_each(|(v, w)| *v -= w);
    Ok(current)
}

/// s R + (1 - s) I.
fn interpolated(r: &Matrix, strength: f64) -> Matrix {
    let mut out = r.clone();
    if strength != 1.0 {
        let (s, rest) = (strength as f32, (1.0 - strength) as f32);
        for (i, v) in out.values.iter_mut().enumerate() {
            *v = *v * s + if i / r.columns == i % r.columns { rest } else { 0.0 };
        }
    }
    out
}
