//! Errors of the ways to convolve, as the documentation states them.

use super::*;
use crate::nn::Conv2dConfig;

fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

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
}

/// For sums as long as the networks have: 1280 channels.
#[test]
fn minimal_filtering() {
    let case = case(1280, 16, 12);
    assert!(winograd::suits(&case.g) && !direct::suits(&case.g));
    let (largest, mean) = case.errors(winograd::conv2d);
    assert!(largest < 3e-6 && mean < 2e-6, "{largest:e} {mean:e}");
    let (product_largest, product_mean) = case.errors(implicit_gemm);
    assert!(
        largest < 6.0 * product_largest && mean < 4.0 * product_mean,
        "{product_largest:e} {product_mean:e}"
    );
}

/// The last layer of a UNet.
#[test]
fn few_results() {
    let case = case(320, 4, 24);
    assert!(direct::suits(&case.g));
    let (largest, mean) = case.errors(direct::conv2d);
    assert!(largest < 5e-7 && mean < 3e-7, "{largest:e} {mean:e}");
    let (product_largest, product_mean) = case.errors(implicit_gemm);
    assert!(
        largest < 2.0 * product_largest && mean < 2.0 * product_mean,
        "{product_largest:e} {product_mean:e}"
    );
}
