//! 3-D convolutions against plain loops.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, stored, values};
use lattice_kernels::StoredDType;
use lattice_kernels::nn::{Conv2dConfig, Conv3d, Conv3dConfig, TemporalPadding};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_plain_loops(
        dtype in prop::sample::select(vec![StoredDType::F32, StoredDType::F16, StoredDType::F8E5M2]),
        (batch, inputs, outputs) in (1usize..3, 1usize..5, 1usize..6),
        (frames, height, width) in (1usize..7, 1usize..8, 1usize..8),
        (taps, kernel) in (1usize..5, 1usize..4),
        (time_stride, stride) in (1usize..4, 1usize..3),
        padding in 0usize..3,
        time_padding in prop_oneof![Just(TemporalPadding::Causal), (0usize..6).prop_map(TemporalPadding::Zeros)],
        bias: bool,
        seed: u32,
    ) {
        let w_dims = [outputs, inputs, taps, kernel, kernel];
        let (weight, w) = stored(dtype, &w_dims, None, false, seed);
        let (b_weight, b) = stored(StoredDType::F32, &[outputs], None, false, seed.wrapping_add(1));
        let config = Conv3dConfig {
            space: Conv2dConfig::padded(padding).stride(stride),
            stride: time_stride,
            padding: time_padding,
        };
        let layer = Conv3d::new(weight, bias.then_some(b_weight), config).unwrap();
        let dims = [batch, inputs, frames, height, width];
        let x = values(dims.iter().product(), seed.wrapping_add(2));
        let y = layer.forward(&Tensor::from_vec(x.clone(), &dims, &Device::Cpu).unwrap());
        let (before, after) = match time_padding {
            TemporalPadding::Zeros(n) => (n, n),
            TemporalPadding::Causal => (taps - 1, 0),
        };
        let extent = |size: usize, reach: usize, stride: usize| Some(size.checked_sub(reach)? / stride + 1);
        let sizes = (
            extent(frames + before + after, taps, time_stride),
            extent(height + 2 * padding, kernel, stride),
            extent(width + 2 * padding, kernel, stride),
        );
        let (Some(out_t), Some(out_h), Some(out_w)) = sizes else {
            prop_assert!(y.is_err());
            return Ok(());
        };
        let y = y.unwrap();
        prop_assert_eq!(y.dims(), [batch, outputs, out_t, out_h, out_w]);
        // The input at an offset frame and pixel, with what stands beyond its edges.
        let at = |n: usize, c: usize, t: usize, iy: usize, ix: usize| {
            let t = match time_padding {
                TemporalPadding::Zeros(_) => t.wrapping_sub(before),
                TemporalPadding::Causal => t.saturating_sub(before),
            };
            let (iy, ix) = (iy.wrapping_sub(padding), ix.wrapping_sub(padding));
            if t >= frames || iy >= height || ix >= width {
                return 0.0;
            }
            f64::from(x[(((n * inputs + c) * frames + t) * height + iy) * width + ix])
        };
        let mut want = Vec::new();
        for (n, o) in (0..batch).flat_map(|n| (0..outputs).map(move |o| (n, o))) {
            for (t, oy) in (0..out_t).flat_map(|t| (0..out_h).map(move |oy| (t, oy))) {
                for ox in 0..out_w {
                    let mut sum = if bias { f64::from(b[o]) } else { 0.0 };
                    for (i, &tap) in w[o * inputs * taps * kernel * kernel..][..inputs * taps * kernel * kernel]
                        .iter()
                        .enumerate()
                    {
                        let (kx, ky) = (i % kernel, i / kernel % kernel);
                        let (kt, c) = (i / kernel / kernel % taps, i / kernel / kernel / taps);
                        sum += f64::from(tap)
                            * at(n, c, t * time_stride + kt, oy * stride + ky, ox * stride + kx);
                    }
                    want.push(sum);
                }
            }
        }
        assert_close(&y, &want, 1e-5)?;
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (weight, _) = stored(StoredDType::F32, &[2, 3, 2, 1, 1], None, false, 1);
    let config =
        Conv3dConfig { space: Conv2dConfig::padded(0), stride: 1, padding: TemporalPadding::Zeros(0) };
    assert!(Conv3d::new(weight.clone(), None, Conv3dConfig { stride: 0, ..config }).is_err());
    assert!(Conv3d::new(weight.reshape((2, 3, 2, 1)).unwrap(), None, config).is_err());
    let layer = Conv3d::new(weight, None, config).unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(layer.forward(&zeros(&[1, 3, 2, 4, 4])).is_ok());
    assert!(layer.forward(&zeros(&[1, 3, 1, 4, 4])).is_err());
    assert!(layer.forward(&zeros(&[1, 2, 2, 4, 4])).is_err());
    assert!(layer.forward(&zeros(&[1, 3, 0, 4, 4])).is_err());
}
