use proptest::prelude::*;

use super::*;
use crate::simd::{Level, MAX_NR};
use crate::testing::values;

/// B as a plain row-major matrix.
struct Plain<'a> {
    data: &'a [f32],
    n: usize,
}

impl Right for Plain<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, _: S, k0: usize, k: usize, col: usize, cols: usize, dst: &mut [f32]) {
        for p in 0..k {
            let row = &self.data[(k0 + p) * self.n + col..][..cols];
            dst[p * S::NR..p * S::NR + cols].copy_from_slice(row);
            dst[p * S::NR + cols..(p + 1) * S::NR].fill(0.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_plain_loops(
        m in 0usize..70,
        n in 0usize..140,
        k in prop_oneof![0usize..40, 300usize..700, 2040usize..2100],
        row_bias: bool,
        col_bias: bool,
        residual: bool,
        gated: bool,
        seed: u32,
    ) {
        let (n, residual, row_bias) = if gated { (n & !1, false, false) } else { (n, residual, row_bias) };
        let (a, b, r) = (values(m * k, seed), values(k * n, seed ^ 1), values(m * n, seed ^ 2));
        let (rb, cb) = (values(m, seed ^ 3), values(n, seed ^ 4));
        let width = if gated { n / 2 } else { n };
        let mut want = vec![0f64; m * n];
        for i in 0..m {
            for j in 0..n {
                let dot: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
                let extra = [(row_bias, rb[i]), (col_bias, cb[j]), (residual, r[i * n + j])];
                want[i * n + j] = dot + extra.iter().filter(|e| e.0).map(|e| f64::from(e.1)).sum::<f64>();
            }
        }
        for level in Level::available() {
            let mut out = vec![f32::NAN; m * width];
            let product = Product {
                m, n, k,
                left: &Matrix { data: &a, ld: k },
                right: &Plain { data: &b, n },
                row_bias: row_bias.then_some(&rb[..]),
                col_bias: col_bias.then_some(&cb[..]),
                residual: residual.then_some(&r[..]),
                finish: if gated { Finish::Gated(Activation::Relu) } else { Finish::Activation(Activation::None) },
                out: SharedMut::new(&mut out),
                ld_out: width,
            };
            for columns in split(width, 2, MAX_NR) {
                for rows in split(m, 3, 1) {
                    level.run(Block { product: &product, rows, columns: columns.clone() });
                }
            }
            for i in 0..m {
                for j in 0..width {
                    let want = if gated {
                        want[i * n + j] * want[i * n + width + j].max(0.0)
                    } else {
                        want[i * n + j]
                    };
                    let got = f64::from(out[i * width + j]);
                    let scale = 2e-6 * ((k as f64).sqrt() + 1.0) * if gated { (k as f64).sqrt() + 1.0 } else { 1.0 };
                    prop_assert!((got - want).abs() <= scale, "{level:?} ({i}, {j}): {got} instead of {want}");
                }
            }
        }
    }
}
