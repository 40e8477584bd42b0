//! Rotary position embedding against plain loops.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, values};
use lattice_kernels::ops;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_plain_loops(
        (batch, length, heads, pairs) in (0usize..3, 0usize..20, 1usize..5, 0usize..40),
        transposed: bool,
        seed: u32,
    ) {
        let width = heads * 2 * pairs;
        let x = values(batch * length * width, seed);
        let angles: Vec<f32> = values(length * pairs, seed.wrapping_add(1)).iter().map(|a| a * 7.0).collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&a| f(a)).collect();
            Tensor::from_vec(values, (length, pairs), &Device::Cpu).unwrap()
        };
        let mut want = vec![0f64; x.len()];
        for i in (0..x.len()).step_by(2) {
            let position = i / width % length;
            let angle = f64::from(angles[position * pairs + i % width / 2 % pairs]);
            let (a, b) = (f64::from(x[i]), f64::from(x[i + 1]));
            want[i] = a * angle.cos() - b * angle.sin();
            want[i + 1] = a * angle.sin() + b * angle.cos();
        }
        let mut t = Tensor::from_vec(x, (batch, length, width), &Device::Cpu).unwrap();
        if transposed {
            t = t.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
        }
        let y = ops::rotate_neighbours(&t, heads, &table(f32::cos), &table(f32::sin)).unwrap();
        assert_close(&y, &want, 1e-6)?;
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap();
    let angles = zeros(&[3, 2]);
    assert!(ops::rotate_neighbours(&zeros(&[1, 3, 8]), 2, &angles, &angles).is_ok());
    assert!(ops::rotate_neighbours(&zeros(&[1, 4, 8]), 2, &angles, &angles).is_err());
    assert!(ops::rotate_neighbours(&zeros(&[1, 3, 8]), 3, &angles, &angles).is_err());
    assert!(ops::rotate_neighbours(&zeros(&[1, 3, 8]), 2, &angles, &zeros(&[3, 1])).is_err());
}
