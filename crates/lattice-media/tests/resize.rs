//! Resizing: identities and plain versions.

use candle_core::{Device, Tensor};
use lattice_media::resize::{Crop, Method, common_upscale};
use proptest::prelude::*;

fn planes() -> impl Strategy<Value = Tensor> {
    (1..3usize, 1..5usize, 1..12usize, 1..12usize).prop_flat_map(|(b, c, h, w)| {
        prop::collection::vec(0u8..=255, b * c * h * w).prop_map(move |v| {
            let v: Vec<f32> = v.into_iter().map(|v| f32::from(v) / 255.0).collect();
            Tensor::from_vec(v, (b, c, h, w), &Device::Cpu).unwrap()
        })
    })
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

const METHODS: [Method; 6] =
    [Method::NearestExact, Method::Bilinear, Method::Area, Method::Bicubic, Method::Bislerp, Method::Lanczos];

proptest! {
    #[test]
    fn same_size_changes_nothing(p in planes()) {
        let (_, _, h, w) = p.dims4().unwrap();
        for method in METHODS {
            let out = common_upscale(&p, w, h, method, Crop::Center).unwrap();
            // Lanczos truncates to 8 bit.
            let allowed = if method == Method::Lanczos { 1.0 / 255.0 + 1e-6 } else { 1e-6 };
            for (a, b) in values(&out).into_iter().zip(values(&p)) {
                prop_assert!((a - b).abs() <= allowed, "{method:?}: {a} for {b}");
            }
        }
    }

    #[test]
    fn one_colour_stays_that_colour(w in 1..20usize, h in 1..20usize, new_w in 1..30usize, new_h in 1..30usize) {
        let p = Tensor::full(0.6f32, (1, 3, h, w), &Device::Cpu).unwrap();
        for method in METHODS {
            let out = common_upscale(&p, new_w, new_h, method, Crop::Disabled).unwrap();
            prop_assert_eq!(out.dims(), [1, 3, new_h, new_w]);
            prop_assert!(values(&out).iter().all(|v| (v - 0.6).abs() < 1e-5), "{method:?}");
        }
    }

    #[test]
    fn area_of_a_whole_factor_is_the_block_mean(p in planes(), kx in 1..4usize, ky in 1..4usize) {
        let (b, c, h, w) = p.dims4().unwrap();
        let big = common_upscale(&p, w * kx, h * ky, Method::NearestExact, Crop::Disabled).unwrap();
        prop_assert_eq!(big.dims4().unwrap(), (b, c, h * ky, w * kx));
        let back = common_upscale(&big, w, h, Method::Area, Crop::Disabled).unwrap();
        for (a, b) in values(&back).into_iter().zip(values(&p)) {
            prop_assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn centre_crop_cuts_both_sides_alike() {
    let p = Tensor::arange(0f32, 8.0, &Device::Cpu).unwrap().reshape((1, 1, 1, 8)).unwrap();
    let out = common_upscale(&p, 4, 1, Method::NearestExact, Crop::Center).unwrap();
    assert_eq!(values(&out), [2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn frames_of_a_video_are_resized_one_by_one() {
    let p = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((1, 2, 3, 1, 2)).unwrap();
    let out = common_upscale(&p, 1, 1, Method::Area, Crop::Disabled).unwrap();
    assert_eq!(out.dims(), [1, 2, 3, 1, 1]);
    assert_eq!(values(&out), [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]);
}

#[test]
fn impossible_sizes_are_errors() {
    let p = Tensor::zeros((1, 1, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    for (w, h) in [(0, 4), (4, 0), (usize::MAX, usize::MAX)] {
        assert!(common_upscale(&p, w, h, Method::Bilinear, Crop::Disabled).is_err());
    }
    assert!(common_upscale(&p, 1, 1000, Method::Area, Crop::Center).is_err());
}
