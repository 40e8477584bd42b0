//! Convolutions against plain loops, for every stored dtype.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, stored, values};
use lattice_kernels::StoredDType;
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use proptest::prelude::*;

/// The definition in f64: x [batch, in, h, w], w [out, in / groups, kh, kw].
fn plain(
    x: &[f32],
    dims: [usize; 4],
    w: &[f32],
    w_dims: [usize; 4],
    bias: Option<&[f32]>,
    config: Conv2dConfig,
    out_size: [usize; 2],
) -> Vec<f64> {
    let [batch, inputs, height, width] = dims;
    let [outputs, group_inputs, kh, kw] = w_dims;
    let mut out = Vec::new();
    for image in 0..batch {
        for o in 0..outputs {
            let group = o / (outputs / config.groups);
            for y in 0..out_size[0] {
                for x_out in 0..out_size[1] {
                    let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
                    for c in 0..group_inputs {
                        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                            let iy =
                                (y * config.stride + ky * config.dilation).wrapping_sub(config.padding[0]);
                            let ix = (x_out * config.stride + kx * config.dilation)
                                .wrapping_sub(config.padding[2]);
                            if iy < height && ix < width {
                                let from =
                                    ((image * inputs + group * group_inputs + c) * height + iy) * width + ix;
                                let tap = ((o * group_inputs + c) * kh + ky) * kw + kx;
                                sum += f64::from(x[from]) * f64::from(w[tap]);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

fn kernels() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    // Height, width, stride, dilation; 3x3 of stride 1 has a kernel of its own.
    prop_oneof![Just((3, 3, 1, 1)), Just((1, 1, 1, 1)), (1usize..6, 1usize..6, 1usize..4, 1usize..3),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_plain_loops(
        dtype in prop::sample::select(vec![StoredDType::F32, StoredDType::F16, StoredDType::BF16, StoredDType::F8E4M3]),
        batch in 0usize..3,
        (groups, group_inputs, group_outputs) in prop_oneof![
            (Just(1usize), 0usize..40, 0usize..70),
            (2usize..4, 1usize..5, 1usize..20),
        ],
        size in prop_oneof![(1usize..8, 1usize..8), (1usize..24, 1usize..80)],
        (kh, kw, stride, dilation) in kernels(),
        padding in prop::array::uniform4(0usize..4),
        bias: bool,
        misaligned: bool,
        transposed: bool,
        seed: u32,
    ) {
        let config = Conv2dConfig { stride, padding, dilation, groups };
        let [top, bottom, left, right] = padding;
        let (inputs, outputs) = (groups * group_inputs, groups * group_outputs);
        let w_dims = [outputs, group_inputs, kh, kw];
        let (weight, w) = stored(dtype, &w_dims, None, misaligned, seed);
        let (b_weight, b) = stored(StoredDType::F32, &[outputs], None, false, seed.wrapping_add(1));
        let layer = Conv2d::new(weight, bias.then_some(b_weight), config).unwrap();
        let (height, width) = size;
        let dims = [batch, inputs, height, width];
        let x = values(dims.iter().product(), seed.wrapping_add(2));
        // The same values, contiguous or as a transposed view.
        let tensor = Tensor::from_vec(x.clone(), &dims, &Device::Cpu).unwrap();
        let tensor = if transposed {
            tensor.transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap()
        } else {
            tensor
        };
        let reach = |kernel: usize| (kernel - 1) * dilation + 1;
        let y = layer.forward(&tensor);
        if height + top + bottom < reach(kh) || width + left + right < reach(kw) {
            prop_assert!(y.is_err());
            return Ok(());
        }
        let y = y.unwrap();
        let out_size = [
            (height + top + bottom - reach(kh)) / stride + 1,
            (width + left + right - reach(kw)) / stride + 1,
        ];
        prop_assert_eq!(y.dims(), [batch, outputs, out_size[0], out_size[1]]);
        let want = plain(&x, dims, &w, w_dims, bias.then_some(&b[..]), config, out_size);
        assert_close(&y, &want, 1e-5)?;
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let (w, _) = stored(StoredDType::F32, &[4, 3, 3, 3], None, false, 1);
    let (b, _) = stored(StoredDType::F32, &[3], None, false, 1);
    assert!(Conv2d::new(w.clone(), Some(b.clone()), Conv2dConfig::padded(1)).is_err());
    assert!(Conv2d::new(b, None, Conv2dConfig::padded(1)).is_err());
    let grouped = Conv2dConfig { groups: 3, ..Conv2dConfig::padded(1) };
    assert!(Conv2d::new(w.clone(), None, grouped).is_err());
    let x = |dims: &[usize]| Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap();
    let layer = Conv2d::new(w.clone(), None, Conv2dConfig::padded(0)).unwrap();
    assert!(layer.forward(&x(&[1, 4, 8, 8])).is_err());
    assert!(layer.forward(&x(&[1, 3, 2, 8])).is_err());
    assert!(layer.forward(&x(&[3, 8, 8])).is_err());
    let still = Conv2d::new(w, None, Conv2dConfig::padded(0).stride(0)).unwrap();
    assert!(still.forward(&x(&[1, 3, 8, 8])).is_err());
}
