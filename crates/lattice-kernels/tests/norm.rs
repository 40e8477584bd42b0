//! Normalisations against plain loops.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, stored, values};
use lattice_kernels::StoredDType;
use lattice_kernels::nn::{GroupNorm, LayerNorm, RmsNorm};
use proptest::prelude::*;

fn mean(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64
}

/// sqrt(var + eps) in f64.
fn deviation(x: &[f32], eps: f64) -> f64 {
    let mean = mean(x);
    let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / x.len() as f64;
    (var + eps).sqrt()
}

/// (x - mean) / sqrt(var + eps) in f64.
fn normalised(x: &[f32], eps: f64) -> Vec<f64> {
    let (mean, deviation) = (mean(x), deviation(x, eps));
    x.iter().map(|&x| (f64::from(x) - mean) / deviation).collect()
}

/// The values as a tensor that is contiguous, or a view with its axes 0 and 1 exchanged in memory.
fn tensor(x: &[f32], dims: &[usize], transposed: bool) -> Tensor {
    let t = Tensor::from_vec(x.to_vec(), dims, &Device::Cpu).unwrap();
    if transposed { t.transpose(0, 1).unwrap().contiguous().unwrap().transpose(0, 1).unwrap() } else { t }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn group_norm_equals_plain_loops(
        batch in 0usize..3,
        groups in 1usize..5,
        width in 0usize..5,
        size in prop_oneof![(0usize..7, 0usize..7), (40usize..60, 50usize..70)],
        offset in prop_oneof![Just(0f32), Just(30.0)],
        transposed: bool,
        seed: u32,
    ) {
        let channels = groups * width;
        let dims = [batch, channels, size.0, size.1];
        let x: Vec<f32> = values(dims.iter().product(), seed).iter().map(|x| x + offset).collect();
        let (gain, g) = stored(StoredDType::F16, &[channels], None, false, seed.wrapping_add(1));
        let (shift, b) = stored(StoredDType::F32, &[channels], None, false, seed.wrapping_add(2));
        let pixels = size.0 * size.1;
        let mut want = Vec::new();
        let mut least_deviation = 1f64;
        if width * pixels > 0 {
            for (i, group) in x.chunks_exact(width * pixels).enumerate() {
                for (j, y) in normalised(group, 1e-5).into_iter().enumerate() {
                    let c = i % groups * width + j / pixels;
                    want.push(y * f64::from(g[c]) + f64::from(b[c]));
                }
                least_deviation = least_deviation.min(deviation(group, 1e-5));
            }
        }
        let layer = GroupNorm::new(gain, shift, groups, 1e-5);
        let t = tensor(&x, &dims, transposed);
        // The rounding of the mean, some 2e-7 of the offset, is divided by the deviation.
        let tolerance = 2e-6 + 4e-7 * f64::from(offset) / least_deviation;
        assert_close(&layer.forward(&t).unwrap(), &want, tolerance)?;
        let silu: Vec<f64> = want.iter().map(|y| y / (1.0 + (-y).exp())).collect();
        assert_close(&layer.forward_silu(&t).unwrap(), &silu, tolerance)?;
    }

    #[test]
    fn rows_equal_plain_loops(
        rows in prop::array::uniform2(0usize..9),
        width in prop_oneof![0usize..40, 4000usize..5000],
        has_gain: bool,
        has_shift: bool,
        transposed: bool,
        seed: u32,
    ) {
        let dims = [rows[0], rows[1], width];
        let x = values(dims.iter().product(), seed);
        let (gain, g) = stored(StoredDType::BF16, &[width], None, false, seed.wrapping_add(1));
        let (shift, b) = stored(StoredDType::F32, &[width], None, false, seed.wrapping_add(2));
        let (gain, shift) = (has_gain.then_some(gain), has_shift.then_some(shift));
        let g = |j: usize| if has_gain { f64::from(g[j]) } else { 1.0 };
        let b = |j: usize| if has_shift { f64::from(b[j]) } else { 0.0 };
        let (mut layer_want, mut rms_want) = (Vec::new(), Vec::new());
        for row in x.chunks_exact(width.max(1)) {
            layer_want.extend(normalised(row, 1e-3).iter().enumerate().map(|(j, y)| y * g(j) + b(j)));
            let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
            rms_want.extend(row.iter().enumerate().map(|(j, &x)| f64::from(x) / (square + 1e-3).sqrt() * g(j)));
        }
        let t = tensor(&x, &dims, transposed);
        let layer = LayerNorm::new(gain.clone(), shift, 1e-3);
        assert_close(&layer.forward(&t).unwrap(), &layer_want, 2e-6)?;
        assert_close(&RmsNorm::new(gain, 1e-3).forward(&t).unwrap(), &rms_want, 2e-6)?;
    }
}

#[test]
fn wrong_widths_are_errors() {
    let (w, _) = stored(StoredDType::F32, &[6], None, false, 1);
    let x = Tensor::zeros((2, 8, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(GroupNorm::new(w.clone(), w.clone(), 2, 1e-5).forward(&x).is_err());
    assert!(LayerNorm::new(Some(w.clone()), None, 1e-5).forward(&x).is_err());
    assert!(LayerNorm::new(None, Some(w.clone()), 1e-5).forward(&x).is_err());
    assert!(RmsNorm::new(Some(w.clone()), 1e-5).forward(&x).is_err());
    let x = Tensor::zeros((2, 6, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(GroupNorm::new(w.clone(), w.clone(), 4, 1e-5).forward(&x).is_err());
    assert!(GroupNorm::new(w.clone(), w, 0, 1e-5).forward(&x).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn modulated_norm_equals_plain_loops(
        dims in (0usize..4, 0usize..9, 0usize..50),
        transposed: bool,
        seed: u32,
    ) {
        let (batch, length, width) = dims;
        let dims = [batch, length, width];
        let x = values(dims.iter().product(), seed);
        let parts = [1, 2].map(|i| values(batch * width, seed.wrapping_add(i)));
        let mut want = Vec::new();
        for (i, row) in x.chunks_exact(width.max(1)).enumerate() {
            let at = i / length * width;
            let modulated = |(j, y): (usize, &f64)| {
                y * (1.0 + f64::from(parts[1][at + j])) + f64::from(parts[0][at + j])
            };
            want.extend(normalised(row, 1e-3).iter().enumerate().map(modulated));
        }
        let [shift, scale] =
            parts.map(|part| Tensor::from_vec(part, (batch, 1, width), &Device::Cpu).unwrap());
        let layer = LayerNorm::new(None, None, 1e-3);
        let y = layer.forward_modulated(&tensor(&x, &dims, transposed), &shift, &scale).unwrap();
        assert_close(&y, &want, 2e-6)?;
    }
}
