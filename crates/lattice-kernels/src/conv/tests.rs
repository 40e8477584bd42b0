//! Errors of the ways to convolve, as the documentation states them.

use super::*;
use crate::nn::Conv2dConfig;
use crate::testing::values;

/// A 3x3 convolution of a picture of `size` x `size` pixels, padded by one, and its result in f64.
struct Case {
    g: Geometry,
    x: Vec<f32>,
    weight: Weight,
    want: Vec<f64>,
}

fn case(inputs: usize, outputs: usize, size: usize) -> Case {
    let g =
        Geometry::new(&[1, inputs, size, size], &[outputs, inputs, 3, 3], &Conv2dConfig::padded(1)).unwrap();
    let x = values(inputs * size * size, 1);
    let w = values(outputs * inputs * 9, 2);
    let mut want = vec![0f64; outputs * size * size];
    for (o, plane) in want.chunks_exact_mut(size * size).enumerate() {
        for (i, sum) in plane.iter_mut().enumerate() {
            for c in 0..inputs {
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let (y, x_in) = ((i / size + ky).wrapping_sub(1), (i % size + kx).wrapping_sub(1));
                    if y < size && x_in < size {
                        let from = f64::from(x[(c * size + y) * size + x_in]);
                        *sum += from * f64::from(w[(o * inputs + c) * 9 + 3 * ky + kx]);
                    }
                }
            }
        }
    }
    let weight = Weight::from_f32(w, (outputs, inputs, 3, 3)).unwrap();
    Case { g, x, weight, want }
}

impl Case {
    /// Largest error relative to the largest result and mean error relative to the mean result.
    fn errors(&self, way: impl Fn(&Geometry, &[f32], &Weight, Option<&[f32]>, &mut [f32])) -> (f64, f64) {
        let mut got = vec![f32::NAN; self.want.len()];
        way(&self.g, &self.x, &self.weight, None, &mut got);
        let errors = || got.iter().zip(&self.want).map(|(g, w)| (f64::from(*g) - w).abs());
        let largest = self.want.iter().fold(0.0, |m, w| w.abs().max(m));
        let magnitude: f64 = self.want.iter().map(|w| w.abs()).sum();
        // A sum, unlike `f64::max`, does not lose a NaN.
        let mean = errors().sum::<f64>() / magnitude;
        (errors().fold(0.0, f64::max) / largest, mean)
    }
    /// `way`'s errors are below `limits`, and below those of the implicit product times `factors`.
    fn check(
        &self,
        way: impl Fn(&Geometry, &[f32], &Weight, Option<&[f32]>, &mut [f32]),
        limits: (f64, f64),
        factors: (f64, f64),
    ) {
        let (errors, product) = (self.errors(way), self.errors(implicit_gemm));
        let below = |(largest, mean): (f64, f64)| errors.0 < largest && errors.1 < mean;
        assert!(
            below(limits) && below((factors.0 * product.0, factors.1 * product.1)),
            "{errors:?} {product:?}"
        );
    }
}

/// For sums as long as the networks have: 1280 channels.
#[test]
fn minimal_filtering() {
    let case = case(1280, 16, 12);
    assert!(winograd::suits(&case.g) && !direct::suits(&case.g));
    case.check(winograd::conv2d, (3e-6, 2e-6), (6.0, 4.0));
}

/// The last layer of a UNet.
#[test]
fn few_results() {
    let case = case(320, 4, 24);
    assert!(direct::suits(&case.g));
    case.check(direct::conv2d, (5e-7, 3e-7), (2.0, 2.0));
}
