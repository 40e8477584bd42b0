//! Changes made of products of small matrices: Tucker forms, LoHa, LoKr, GLoRA.

use lattice_kernels::Weight;

use super::apply::{Parameter, PatchError};
use super::linalg::{Matrix, multiply_add};
use super::module::{Adapter, Factor};

/// sum_{p,q} core[p,q,k,l] a[p,o] b[q,i] as [o, i, k, l]; `None` if the sizes do not fit.
pub(super) fn tucker(core: &Parameter, a: &Matrix, b: &Matrix) -> Option<Vec<f32>> {
    let [p, q, ref space @ ..] = core.shape[..] else { return None };
    let space: usize = space.iter().product();
    if p != a.rows || q != b.rows {
        return None;
    }
    let (o, i) = (a.columns, b.columns);
    // [q, k l] per p becomes [i, k l], then all p are summed into o.
    let mut inner = Matrix::zeros(p, i.checked_mul(space)?);
    let b_transposed = b.transposed();
    for (slice, out) in
        core.values.chunks_exact((q * space).max(1)).zip(inner.values.chunks_exact_mut((i * space).max(1)))
    {
        let slice = Matrix { rows: q, columns: space, values: slice.to_vec() };
        multiply_add(out, &b_transposed, &slice, 1.0)?;
    }
    let product = a.transposed().multiply(&inner)?;
    debug_assert_eq!(product.rows, o);
    Some(product.values)
}

pub(super) fn loha(
    adapter: &Adapter,
    w: &Parameter,
    factors: &[Weight; 4],
    cores: Option<&[Weight; 2]>,
) -> Result<(Vec<f32>, f64), PatchError> {
    let [w1_a, w1_b, w2_a, w2_b] = [
        adapter.matrix(&factors[0])?,
        adapter.matrix(&factors[1])?,
        adapter.matrix(&factors[2])?,
        adapter.matrix(&factors[3])?,
    ];
    let scale = adapter.scale(w1_b.rows);
    let (m1, m2) = match cores {
        Some([t1, t2]) => {
            (tucker(&adapter.tensor(t1)?, &w1_a, &w1_b), tucker(&adapter.tensor(t2)?, &w2_a, &w2_b))
        }
        None => (w1_a.multiply(&w1_b).map(|m| m.values), w2_a.multiply(&w2_b).map(|m| m.values)),
    };
    let delta = m1.zip(m2).filter(|(a, b)| a.len() == b.len()).map(|(mut a, b)| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    });
    Ok((delta.ok_or_else(|| adapter.misfit(&w.shape, "its factors do not fit each other".into()))?, scale))
}

pub(super) fn lokr(
    adapter: &Adapter,
    w: &Parameter,
    w1: &Factor,
    w2: &Factor,
    core: Option<&Weight>,
) -> Result<(Vec<f32>, f64), PatchError> {
    let misfit = || adapter.misfit(&w.shape, "its factors do not fit each other".into());
    let mut rank = None;
    let left = match w1 {
        Factor::Whole(w) => adapter.matrix(w)?,
        Factor::Product(a, b) => {
            let (a, b) = (adapter.matrix(a)?, adapter.matrix(b)?);
            rank = Some(b.rows);
            a.multiply(&b).ok_or_else(misfit)?
        }
    };
    let right = match w2 {
        Factor::Whole(w) => adapter.matrix(w)?,
        Factor::Product(a, b) => {
            let (a, b) = (adapter.matrix(a)?, adapter.matrix(b)?);
            rank = Some(b.rows);
            match core {
                None => a.multiply(&b).ok_or_else(misfit)?,
                Some(core) => {
                    let values = tucker(&adapter.tensor(core)?, &a, &b).ok_or_else(misfit)?;
                    let rows = a.columns;
                    Matrix { rows, columns: values.len() / rows.max(1), values }
                }
            }
        }
    };
    // A product as large as the weight is what is wanted; a hostile file must not get more.
    let count = left
        .values
        .len()
        .checked_mul(right.values.len())
        .filter(|&n| n == w.values.len())
        .ok_or_else(misfit)?;
    let mut delta = Vec::with_capacity(count);
    for (a_row, b_row) in (0..left.rows).flat_map(|a| (0..right.rows).map(move |b| (a, b))) {
        for &a in &left.values[a_row * left.columns..(a_row + 1) * left.columns] {
            let b = &right.values[b_row * right.columns..(b_row + 1) * right.columns];
            delta.extend(b.iter().map(|b| a * b));
        }
    }
    Ok((delta, rank.map_or(1.0, |rank| adapter.scale(rank))))
}

pub(super) fn glora(
    adapter: &Adapter,
    w: &Parameter,
    factors: &[Weight; 4],
) -> Result<(Vec<f32>, f64), PatchError> {
    let misfit = || adapter.misfit(&w.shape, "its factors do not fit the weight or each other".into());
    let [a1, a2, b1, b2] = [
        adapter.matrix(&factors[0])?,
        adapter.matrix(&factors[1])?,
        adapter.matrix(&factors[2])?,
        adapter.matrix(&factors[3])?,
    ];
    let (rows, columns) = (w.rows(), w.shape.get(1).copied().unwrap_or(1));
    // Two generations of the method differ in which factor comes first; their shapes tell them apart but for square weights.
    let old = b2.columns == b1.rows && b1.rows == a1.rows && a1.rows == a2.columns;
    let new = b2.rows == b1.columns && b1.columns == a1.columns && a1.columns == a2.rows;
    let square_old = old && a2.rows == rows && rows == columns;
    let (mut delta, first, second, rank) = if new && !square_old {
        (b1.multiply(&b2), &a1, &a2, a2.rows)
    } else if old {
        (b2.multiply(&b1), &a2, &a1, a1.rows)
    } else {
        return Err(misfit());
    };
    let delta = delta.as_mut().ok_or_else(misfit)?;
    if delta.values.len() != w.values.len() {
        return Err(misfit());
    }
    let whole = Matrix { rows, columns: w.columns(), values: w.values.clone() };
    if first.rows == whole.columns {
        let product = whole.multiply(first).ok_or_else(misfit)?;
        multiply_add(&mut delta.values, &product, second, 1.0).ok_or_else(misfit)?;
    } else {
        // The weight of a convolution is mixed over its input channels, position by position of the kernel.
        let inputs = first.multiply(second).ok_or_else(misfit)?.transposed();
        let space = w.columns() / columns.max(1);
        let (from, to) = (
            whole.values.chunks_exact((columns * space).max(1)),
            delta.values.chunks_exact_mut((columns * space).max(1)),
        );
        for (from, to) in from.zip(to) {
            let from = Matrix { rows: columns, columns: space, values: from.to_vec() };
            multiply_add(to, &inputs, &from, 1.0).ok_or_else(misfit)?;
        }
    }
    Ok((std::mem::take(&mut delta.values), adapter.scale(rank)))
}
