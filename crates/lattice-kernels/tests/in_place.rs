//! Operations in the memory of their argument against plain loops.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, laid_out, values};
use lattice_kernels::nn::GroupNorm;
use lattice_kernels::{Weight, ops};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_equal_plain_loops(
        (batch, length, width) in (0usize..3, 0usize..40, 0usize..700),
        transposed: bool,
        seed: u32,
    ) {
        let n = batch * length * width;
        let dims = [batch, length, width];
        let (x, y) = (values(n, seed), values(n, seed.wrapping_add(1)));
        let per_sample = values(batch * width, seed.wrapping_add(2));
        let per_channel = values(batch * length, seed.wrapping_add(3));
        let at = |i: usize| (i / (length * width), i / width, i % width);

        let sum: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) + f64::from(y)).collect();
        let t = laid_out(&x, &dims, transposed);
        assert_close(&ops::add_to(t, &laid_out(&y, &dims, false)).unwrap(), &sum, 1e-6)?;

        let gated: Vec<f64> = (0..n)
            .map(|i| f64::from(y[i]) + f64::from(x[i]) * f64::from(per_sample[at(i).0 * width + at(i).2]))
            .collect();
        let gate = laid_out(&per_sample, &[batch, 1, width], false);
        let update = laid_out(&x, &dims, transposed);
        assert_close(&ops::add_gated(&laid_out(&y, &dims, transposed), &gate, update).unwrap(), &gated, 1e-6)?;

        let raised: Vec<f64> = (0..n).map(|i| f64::from(x[i]) + f64::from(per_channel[at(i).1])).collect();
        let channels = laid_out(&per_channel, &[batch, length], false);
        assert_close(&ops::add_per_channel(laid_out(&x, &dims, transposed), &channels).unwrap(), &raised, 1e-6)?;
    }

    #[test]
    fn group_norm_equals_that_into_new_memory(
        (batch, groups, of_group, h, w) in (0usize..3, 1usize..5, 1usize..5, 0usize..40, 0usize..70),
        transposed: bool,
        seed: u32,
    ) {
        let channels = groups * of_group;
        let parameter = |seed: u32| Weight::from_f32(values(channels, seed), channels).unwrap();
        let norm = GroupNorm::new(parameter(seed), parameter(seed.wrapping_add(1)), groups, 1e-5);
        let x = values(batch * channels * h * w, seed.wrapping_add(2));
        let dims = [batch, channels, h, w];
        let want = norm.forward_silu(&laid_out(&x, &dims, transposed)).unwrap();
        let got = norm.forward_silu_in_place(laid_out(&x, &dims, transposed)).unwrap();
        let all = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        prop_assert_eq!(all(got), all(want));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(ops::add_to(zeros(&[2, 3]), &zeros(&[3, 2])).is_err());
    assert!(ops::add_per_channel(zeros(&[2, 3, 4]), &zeros(&[2, 4])).is_err());
    assert!(ops::add_per_channel(zeros(&[2]), &zeros(&[2, 1])).is_err());
    assert!(ops::add_gated(&zeros(&[1, 2, 3]), &zeros(&[1, 1, 3]), zeros(&[1, 2, 3])).is_ok());
    assert!(ops::add_gated(&zeros(&[1, 2, 3]), &zeros(&[1, 2, 3]), zeros(&[1, 2, 3])).is_err());
    let half = zeros(&[2]).to_dtype(DType::F16).unwrap();
    assert!(ops::add_to(half.clone(), &half).is_err());
}
