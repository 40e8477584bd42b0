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

/// Largest error relative to the largest result and mean error relative to the mean result.
fn errors(got: &[f32], want: &[f64]) -> (f64, f64) {
    let error = |(g, w): (&f32, &f64)| (f64::from(*g) - w).abs();
    let largest = got.iter().zip(want).map(error).fold(0.0, f64::max);
    let sum: f64 = got.iter().zip(want).map(error).sum();
    (largest / want.iter().fold(0.0, |m, w| w.abs().max(m)), sum / want.iter().map(|w| w.abs()).sum::<f64>())
}

/// The error stated in the documentation, for sums as long as the networks have: 1280 channels.
#[test]
fn error_is_as_stated() {
    let (inputs, outputs, size) = (1280, 16, 12);
    let config = Conv2dConfig::padded(1);
    let g = Geometry::new(&[1, inputs, size, size], &[outputs, inputs, 3, 3], &config).unwrap();
    let x = values(inputs * size * size, 1);
    let w = values(outputs * inputs * TAPS, 2);
    let mut want = vec![0f64; outputs * size * size];
    for (o, plane) in want.chunks_exact_mut(size * size).enumerate() {
        for (i, sum) in plane.iter_mut().enumerate() {
            for c in 0..inputs {
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let (y, x_in) = ((i / size + ky).wrapping_sub(1), (i % size + kx).wrapping_sub(1));
                    if y < size && x_in < size {
                        let from = f64::from(x[(c * size + y) * size + x_in]);
                        *sum += from * f64::from(w[(o * inputs + c) * TAPS + 3 * ky + kx]);
                    }
                }
            }
        }
    }
    let weight = Weight::from_f32(w, (outputs, inputs, 3, 3)).unwrap();
    let mut out = vec![f32::NAN; want.len()];
    assert!(suits(&g));
    conv2d(&g, &x, &weight, None, &mut out);
    let (largest, mean) = errors(&out, &want);
    assert!(largest < 3e-6 && mean < 2e-6, "{largest:e} {mean:e}");
    let mut direct = vec![f32::NAN; want.len()];
    crate::conv::implicit_gemm(&g, &x, &weight, None, &mut direct);
    let (direct_largest, direct_mean) = errors(&direct, &want);
    assert!(largest < 6.0 * direct_largest && mean < 4.0 * direct_mean, "{direct_largest:e} {direct_mean:e}");
}
