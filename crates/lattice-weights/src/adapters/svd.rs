//! The largest singular values and vectors of a matrix.

use super::linalg::Matrix;

/// Directions followed beyond those wanted, so that the last wanted one converges.
const OVERSAMPLING: usize = 10;
/// Rounds of subspace iteration: errors shrink by the ratio of neighbouring singular values squared in each.
const ROUNDS: usize = 6;
/// Sweeps of Jacobi rotations; a handful are enough, and each only costs where something is left to rotate.
const SWEEPS: usize = 30;

/// A = left diag(singular) right, cut to the largest singular values.
pub(super) struct Svd {
    /// Rows of A x rank, orthonormal columns.
    pub(super) left: Matrix,
    /// In falling order.
    pub(super) singular: Vec<f32>,
    /// Rank x columns of A, orthonormal rows.
    pub(super) right: Matrix,
}

/// Randomized subspace iteration (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1), the small problem solved by one-sided
/// Jacobi rotations. Where the rank reaches the matrix's own, nothing is lost.
pub(super) fn truncated_svd(a: &Matrix, rank: usize) -> Svd {
    let full = a.rows.min(a.columns);
    let rank = rank.min(full);
    let width = rank.saturating_add(OVERSAMPLING).min(full);
    let transposed = a.transposed();
    // Bases are kept as rows: those are contiguous.
    let mut left = project(&random(width, a.columns), &transposed);
    orthonormalize(&mut left);
    for _ in 0..ROUNDS {
        let mut right = project(&left, a);
        orthonormalize(&mut right);
        left = project(&right, &transposed);
        orthonormalize(&mut left);
    }
    let mut small = project(&left, a);
    rotate_rows(&mut small, &mut left);
    let mut order: Vec<(usize, f64)> = rows(&small).map(|row| dot(row, row).sqrt()).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(rank);
    let mut svd = Svd {
        left: Matrix::zeros(rank, a.rows),
        singular: Vec::new(),
        right: Matrix::zeros(rank, a.columns),
    };
    for (to, &(from, norm)) in order.iter().enumerate() {
        svd.singular.push(norm as f32);
        svd.left.values[to * a.rows..][..a.rows].copy_from_slice(&left.values[from * a.rows..][..a.rows]);
        let source = &small.values[from * a.columns..][..a.columns];
        for (r, &v) in svd.right.values[to * a.columns..].iter_mut().zip(source) {
            *r = if norm > 0.0 { (f64::from(v) / norm) as f32 } else { 0.0 };
        }
    }
    svd.left = svd.left.transposed();
    svd
}

/// The rows of `basis` times `a`.
fn project(basis: &Matrix, a: &Matrix) -> Matrix {
    basis.multiply(a).unwrap_or_else(|| Matrix::zeros(basis.rows, a.columns))
}

fn rows(m: &Matrix) -> impl Iterator<Item = &[f32]> {
    m.values.chunks_exact(m.columns.max(1))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    // Lanes of f32 pairs summed in f64: long rows would lose the orthogonality that everything here rests on.
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Values in -1..1 that depend on their place only: the result must not differ between runs.
fn random(rows: usize, columns: usize) -> Matrix {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let values = (0..rows * columns).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Matrix { rows, columns, values: values.collect() }
}

/// Gram-Schmidt, twice for each row against rounding; rows that depend on those before become zero.
fn orthonormalize(m: &mut Matrix) {
    let n = m.columns.max(1);
    for i in 0..m.rows {
        let (before, rest) = m.values.split_at_mut(i * n);
        let row = &mut rest[..n];
        let size = dot(row, row).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(n) {
                let share = dot(row, other) as f32;
                row.iter_mut().zip(other).for_each(|(v, o)| *v -= share * o);
            }
        }
        let left = dot(row, row).sqrt();
        let factor = if left > size * 1e-6 { (1.0 / left) as f32 } else { 0.0 };
        for v in row.iter_mut() {
            *v *= factor;
        }
    }
}

/// Rotates pairs of rows of `m` until all are orthogonal, and the rows of `basis` with them.
fn rotate_rows(m: &mut Matrix, basis: &mut Matrix) {
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for i in 0..m.rows {
            for j in i + 1..m.rows {
                let (a, b) = two_rows(m, i, j);
                let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
                if ab.abs() <= 1e-7 * (aa * bb).sqrt() || ab == 0.0 {
                    continue;
                }
                rotated = true;
                let ratio = (bb - aa) / (2.0 * ab);
                let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let (c, s) = (cosine as f32, (cosine * tangent) as f32);
                rotate(a, b, c, s);
                let (a, b) = two_rows(basis, i, j);
                rotate(a, b, c, s);
            }
        }
        if !rotated {
            break;
        }
    }
}

fn two_rows(m: &mut Matrix, i: usize, j: usize) -> (&mut [f32], &mut [f32]) {
    let n = m.columns.max(1);
    let (before, after) = m.values.split_at_mut(j * n);
    (&mut before[i * n..][..n], &mut after[..n])
}

fn rotate(a: &mut [f32], b: &mut [f32], c: f32, s: f32) {
    for (x, y) in a.iter_mut().zip(b) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reconstructed(svd: &Svd) -> Matrix {
        let mut left = svd.left.clone();
        for row in left.values.chunks_exact_mut(left.columns.max(1)) {
            row.iter_mut().zip(&svd.singular).for_each(|(v, s)| *v *= s);
        }
        left.multiply(&svd.right).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_matrix_of_low_rank_is_recovered(m in 1usize..40, n in 1usize..40, rank in 1usize..6, seed in 1u64..1000) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            };
            let a = Matrix { rows: m, columns: rank, values: (0..m * rank).map(|_| next()).collect() };
            let b = Matrix { rows: rank, columns: n, values: (0..rank * n).map(|_| next()).collect() };
            let product = a.multiply(&b).unwrap();
            let svd = truncated_svd(&product, rank);
            prop_assert!(svd.singular.windows(2).all(|w| w[0] >= w[1]));
            for (g, w) in reconstructed(&svd).values.iter().zip(&product.values) {
                prop_assert!((g - w).abs() < 1e-4, "{g} for {w}");
            }
        }
    }

    #[test]
    fn singular_values_of_a_known_matrix() {
        // 2x2 with singular values sqrt(45) and sqrt(5).
        let svd = truncated_svd(&Matrix { rows: 2, columns: 2, values: vec![3., 0., 4., 5.] }, 2);
        assert!(
            (svd.singular[0] - 45f32.sqrt()).abs() < 1e-5 && (svd.singular[1] - 5f32.sqrt()).abs() < 1e-5
        );
        let nothing = truncated_svd(&Matrix::zeros(3, 4), 2);
        assert_eq!(nothing.singular, [0.0, 0.0]);
    }
}
