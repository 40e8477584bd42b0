//! Control networks as conditionings apply them: strength, time, the order of pictures, several at once.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lattice_diffusion::conditioning::{AppliedControl, ControlCall, ControlSource};
use lattice_diffusion::{ModelSampling, SamplingSettings};
use lattice_goldens::synthetic::Manifest;
use lattice_models::network::Control;
use lattice_models::{ControlNetwork, NetworkInput};
use lattice_weights::StoredDType;

fn network() -> Arc<ControlNetwork> {
    let manifest = Manifest::find(&Manifest::project_root(), "tiny/t2i_sd15").unwrap();
    Arc::new(ControlNetwork::load(&manifest.state_dict(0, StoredDType::F32).unwrap()).unwrap())
}

fn sampling() -> ModelSampling {
    ModelSampling::new(&SamplingSettings::eps()).unwrap()
}

/// Residuals for a latent of 8 by 6 cells.
fn residuals(control: &dyn ControlSource, rows: usize, entries: usize, sigma: f64) -> Option<Control> {
    let x = Tensor::zeros((rows, 4, 8, 6), DType::F32, &Device::Cpu).unwrap();
    let input = NetworkInput::new(x, Tensor::zeros(rows, DType::F32, &Device::Cpu).unwrap());
    control
        .residuals(&ControlCall { input: &input, sigma, sampling: &sampling(), entries, weights: None })
        .unwrap()
}

/// Pictures of another size than the latent's: one of each brightness.
fn pictures(brightness: &[f32]) -> Tensor {
    let one = |b: &f32| Tensor::full(*b, (1, 3, 40, 50), &Device::Cpu).unwrap();
    Tensor::cat(&brightness.iter().map(one).collect::<Vec<_>>(), 0).unwrap()
}

fn applied(brightness: &[f32], strength: f64, range: (f64, f64)) -> AppliedControl {
    AppliedControl::new(network(), pictures(brightness), strength, range, None)
}

fn values(control: &Control) -> Vec<Vec<f32>> {
    let all = control.input.iter().chain(&control.middle).chain(&control.output).flatten();
    all.map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

fn close(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(near))
}

fn scaled(values: &[Vec<f32>], by: f32) -> Vec<Vec<f32>> {
    values.iter().map(|list| list.iter().map(|v| v * by).collect()).collect()
}

const ALWAYS: (f64, f64) = (0.0, 1.0);

#[test]
fn strength_scales_and_controls_in_a_row_add_up() {
    let full = values(&residuals(&applied(&[0.7], 1.0, ALWAYS), 1, 1, 5.0).unwrap());
    assert!(full.len() == 4 && full.iter().flatten().any(|v| v.abs() > 1e-3));
    let half = values(&residuals(&applied(&[0.7], 0.5, ALWAYS), 1, 1, 5.0).unwrap());
    assert!(close(&half, &scaled(&full, 0.5)));
    let first: Arc<dyn ControlSource> = Arc::new(applied(&[0.7], 0.5, ALWAYS));
    let both = AppliedControl::new(network(), pictures(&[0.7]), 1.0, ALWAYS, Some(first));
    assert!(close(&values(&residuals(&both, 1, 1, 5.0).unwrap()), &scaled(&full, 1.5)));
}

#[test]
fn a_control_works_between_its_noise_levels() {
    let levels = [0.0, 0.3, 0.6, 1.0].map(|share| sampling().percent_to_sigma(share).min(1e3));
    let control = applied(&[0.7], 1.0, (0.3, 0.6));
    let active = levels.map(|sigma| residuals(&control, 1, 1, sigma).is_some());
    assert_eq!(active, [false, true, true, false]);
    // What stood there before goes on working.
    let before: Arc<dyn ControlSource> = Arc::new(applied(&[0.7], 0.5, ALWAYS));
    let alone = values(&residuals(before.as_ref(), 1, 1, levels[3]).unwrap());
    let late = AppliedControl::new(network(), pictures(&[0.7]), 1.0, (0.3, 0.6), Some(before));
    assert!(close(&values(&residuals(&late, 1, 1, levels[3]).unwrap()), &alone));
}

#[test]
fn pictures_follow_the_latents_of_every_entry() {
    let one = |b: f32| values(&residuals(&applied(&[b], 1.0, ALWAYS), 1, 1, 5.0).unwrap());
    let (dark, light) = (one(0.2), one(0.9));
    assert!(!close(&dark, &light));
    let joined = |order: &[&Vec<Vec<f32>>]| -> Vec<Vec<f32>> {
        (0..dark.len()).map(|i| order.iter().flat_map(|values| values[i].clone()).collect()).collect()
    };
    // Two latents, prompts of two lists in one call; then three latents for two pictures.
    let two = applied(&[0.2, 0.9], 1.0, ALWAYS);
    let got = values(&residuals(&two, 4, 2, 5.0).unwrap());
    assert!(close(&got, &joined(&[&dark, &light, &dark, &light])));
    let got = values(&residuals(&two, 3, 1, 5.0).unwrap());
    assert!(close(&got, &joined(&[&dark, &light, &dark])));
    let got = values(&residuals(&two, 1, 1, 5.0).unwrap());
    assert!(close(&got, &dark));
}
