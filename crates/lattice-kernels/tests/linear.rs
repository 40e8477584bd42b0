//! Linear layers against plain loops, for every stored dtype.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, stored, values};
use lattice_kernels::nn::Linear;
use lattice_kernels::{Activation, StoredDType};
use proptest::prelude::*;

fn dtypes() -> impl Strategy<Value = StoredDType> {
    prop::sample::select(vec![
        StoredDType::F32,
        StoredDType::F16,
        StoredDType::BF16,
        StoredDType::F8E4M3,
        StoredDType::F8E5M2,
        StoredDType::F64,
    ])
}

fn gelu(x: f64) -> f64 {
    // Phi by its series; the values of these tests stay near 0.
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    x * 0.5 * (1.0 + sum * std::f64::consts::FRAC_2_SQRT_PI)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_plain_loops(
        dtype in dtypes(),
        rows in prop_oneof![0usize..12, 20usize..60],
        inputs in 0usize..90,
        half in 0usize..50,
        scale in prop::option::of(0.5f32..2.0),
        bias: bool,
        misaligned: bool,
        transposed: bool,
        seed: u32,
    ) {
        let outputs = 2 * half;
        let (weight, w) = stored(dtype, &[outputs, inputs], scale, misaligned, seed);
        let (b_weight, b) = stored(StoredDType::F32, &[outputs], None, false, seed.wrapping_add(3));
        let layer = Linear::new(weight, bias.then_some(b_weight)).unwrap();
        let x = values(rows * inputs, seed.wrapping_add(2));
        let r = values(rows * outputs, seed.wrapping_add(1));
        // The same values, contiguous or as a transposed view.
        let tensor = if transposed {
            let t: Vec<f32> = (0..rows * inputs).map(|i| x[i % rows.max(1) * inputs + i / rows.max(1)]).collect();
            Tensor::from_vec(t, (inputs, rows), &Device::Cpu).unwrap().t().unwrap()
        } else {
            Tensor::from_vec(x.clone(), (rows, inputs), &Device::Cpu).unwrap()
        };
        let mut want = vec![0f64; rows * outputs];
        for i in 0..rows {
            for j in 0..outputs {
                let dot: f64 = (0..inputs).map(|p| f64::from(x[i * inputs + p]) * f64::from(w[j * inputs + p])).sum();
                want[i * outputs + j] = dot + if bias { f64::from(b[j]) } else { 0.0 };
            }
        }
        let y = layer.forward(&tensor).unwrap();
        assert_eq!(y.dims(), [rows, outputs]);
        assert_close(&y, &want, 1e-5)?;

        let residual = Tensor::from_vec(r.clone(), (rows, outputs), &Device::Cpu).unwrap();
        let sum: Vec<f64> = want.iter().zip(&r).map(|(a, &b)| a + f64::from(b)).collect();
        assert_close(&layer.forward_residual(&tensor, &residual).unwrap(), &sum, 1e-5)?;

        let relu: Vec<f64> = want.iter().map(|a| a.max(0.0)).collect();
        assert_close(&layer.forward_activation(&tensor, Activation::Relu).unwrap(), &relu, 1e-5)?;

        let mut gated = Vec::new();
        for row in want.chunks_exact(outputs.max(1)) {
            gated.extend((0..half).map(|j| row[j] * gelu(row[half + j].clamp(-4.0, 4.0))));
        }
        if want.iter().all(|v| v.abs() < 4.0) {
            assert_close(&layer.forward_gated(&tensor, Activation::Gelu).unwrap(), &gated, 4e-5)?;
        }
    }
}

/// Every block type of GGUF, with few rows (dot products) and many (packed panels), against the widened matrix.
#[test]
fn blocks_are_multiplied_as_stored() {
    use lattice_kernels::quant::BlockType as B;
    for block in [B::Q4_0, B::Q4_1, B::Q5_0, B::Q5_1, B::Q8_0, B::Q2K, B::Q3K, B::Q4K, B::Q5K, B::Q6K] {
        let dtype = StoredDType::Block(block);
        for (rows, outputs, inputs) in [(3, 34, 512), (70, 50, 768), (40, 7, 256)] {
            let (weight, w) = stored(dtype, &[outputs, inputs], None, outputs == 50, 11);
            assert!(w.iter().all(|v| v.is_finite()) && w.iter().any(|v| *v != 0.0), "{dtype}");
            let layer = Linear::new(weight, None).unwrap();
            let x = values(rows * inputs, 5);
            let y =
                layer.forward(&Tensor::from_vec(x.clone(), (rows, inputs), &Device::Cpu).unwrap()).unwrap();
            let row = |v: &[f32], i: usize| v[i * inputs..(i + 1) * inputs].to_vec();
            let want: Vec<f64> = (0..rows * outputs)
                .map(|at| {
                    let (x, w) = (row(&x, at / outputs), row(&w, at % outputs));
                    x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
                })
                .collect();
            assert_close(&y, &want, 1e-5).unwrap_or_else(|e| panic!("{dtype}: {e}"));
        }
    }
}

#[test]
fn wrong_widths_are_errors() {
    let (w, _) = stored(StoredDType::F32, &[4, 3], None, false, 1);
    let (b, _) = stored(StoredDType::F32, &[5], None, false, 1);
    assert!(Linear::new(w.clone(), Some(b.clone())).is_err());
    assert!(Linear::new(b, None).is_err());
    let layer = Linear::new(w, None).unwrap();
    let x = Tensor::from_vec(vec![0f32; 8], (2, 4), &Device::Cpu).unwrap();
    assert!(layer.forward(&x).is_err());
}
