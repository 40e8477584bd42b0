//! The few matrix operations adapters need, in f32, row major.

use gemm::{Parallelism, gemm};

/// A matrix: values in rows.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

impl Matrix {
    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub(super) fn identity(n: usize) -> Self {
        let mut m = Self::zeros(n, n);
        for i in 0..n {
            m.values[i * n + i] = 1.0;
        }
        m
    }

    /// `None` if the inner sizes differ.
    pub(super) fn multiply(&self, other: &Self) -> Option<Self> {
        let mut out = Self::zeros(self.rows, other.columns);
        multiply_add(&mut out.values, self, other, 1.0)?;
        Some(out)
    }

    pub(super) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.columns, self.rows);
        for r in 0..self.rows {
            for c in 0..self.columns {
                out.values[c * self.rows + r] = self.values[r * self.columns + c];
            }
        }
        out
    }

    /// Inverse of a square matrix by Gauss-Jordan elimination with partial pivoting; `None` if it has none.
    pub(super) fn inverse(&self) -> Option<Self> {
        let n = self.rows;
        // f64 inside: blocks are small, and rotations lose orthogonality quickly.
        let mut left: Vec<f64> = self.values.iter().map(|&v| f64::from(v)).collect();
        let mut right: Vec<f64> = Self::identity(n).values.iter().map(|&v| f64::from(v)).collect();
        for column in 0..n {
            let pivot = (column..n)
                .max_by(|&a, &b| left[a * n + column].abs().total_cmp(&left[b * n + column].abs()))?;
            let value = left[pivot * n + column];
            if value == 0.0 || !value.is_finite() {
                return None;
            }
            for k in 0..n {
                left.swap(column * n + k, pivot * n + k);
                right.swap(column * n + k, pivot * n + k);
                left[column * n + k] /= value;
                right[column * n + k] /= value;
            }
            for row in (0..n).filter(|&row| row != column) {
                let factor = left[row * n + column];
                if factor != 0.0 {
                    for k in 0..n {
                        left[row * n + k] -= factor * left[column * n + k];
                        right[row * n + k] -= factor * right[column * n + k];
                    }
                }
            }
        }
        Some(Self { rows: n, columns: n, values: right.into_iter().map(|v| v as f32).collect() })
    }
}

/// `out += factor * a b`; `None` (and `out` unchanged) if the sizes do not fit. The product of a patched weight is added in place: no
/// matrix of the weight's size is made for it.
pub(super) fn multiply_add(out: &mut [f32], a: &Matrix, b: &Matrix, factor: f32) -> Option<()> {
    let fits = a.columns == b.rows
        && out.len() == a.rows.checked_mul(b.columns)?
        && a.values.len() == a.rows.checked_mul(a.columns)?
        && b.values.len() == b.rows.checked_mul(b.columns)?;
    if !fits {
        return None;
    }
    let (m, k, n) = (a.rows, a.columns, b.columns);
    if out.is_empty() || k == 0 {
        return Some(());
    }
    // SAFETY: `out` holds m x n elements and is borrowed exclusively, `a` m x k, `b` k x n, all just checked. Parameters are patched in
    // parallel, so one product stays on its thread.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.values.as_ptr(),
            1,
            k as isize,
            b.values.as_ptr(),
            1,
            n as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_added() {
        let a = Matrix { rows: 2, columns: 3, values: vec![1., 2., 3., 4., 5., 6.] };
        let b = Matrix { rows: 3, columns: 2, values: vec![1., 0., 0., 1., 2., -1.] };
        let mut out = vec![10.0; 4];
        multiply_add(&mut out, &a, &b, 2.0).unwrap();
        assert_eq!(out, [24.0, 8.0, 42.0, 8.0]);
        assert!(multiply_add(&mut out, &b, &b, 1.0).is_none());
    }

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let a = Matrix { rows: 3, columns: 3, values: vec![0., 2., 1., 1., 1., 0., 3., 0., 1.] };
        let one = a.multiply(&a.inverse().unwrap()).unwrap();
        for (g, w) in one.values.iter().zip(&Matrix::identity(3).values) {
            assert!((g - w).abs() < 1e-6);
        }
        assert!(Matrix::zeros(2, 2).inverse().is_none());
    }
}
