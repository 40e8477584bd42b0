use candle_core::{DType, Device, Result, Tensor};
use lattice_models::ForwardOptions;
use proptest::prelude::*;

use super::*;
use crate::model::{Call, ListRole, ModelInputs, NoiseModel, Run};
use crate::{ModelSampling, SamplingSettings};

/// D = x / 2 + the mean of the text, so that texts and places can be told apart.
pub(crate) struct Halving {
    sampling: ModelSampling,
    /// Items that a call may hold.
    pub(crate) limit: usize,
}

impl Halving {
    pub(crate) fn new(limit: usize) -> Self {
        Self { sampling: ModelSampling::new(&SamplingSettings::eps()).unwrap(), limit }
    }
}

impl NoiseModel for Halving {
    fn sampling(&self) -> &ModelSampling {
        &self.sampling
    }

    fn latent_channels(&self) -> usize {
        4
    }

    fn resolve(&self, entry: &Entry, _role: ListRole, _run: &Run) -> Result<ModelInputs> {
        Ok(ModelInputs { context: Some(entry.tensor.clone()), ..ModelInputs::default() })
    }

    fn denoised(&self, x: &Tensor, _sigma: f64, inputs: &ModelInputs, _call: Call<'_>) -> Result<Tensor> {
        let context = inputs.context.as_ref().unwrap();
        let mean = context.mean_keepdim(1)?.mean_keepdim(2)?.reshape(((), 1, 1, 1))?;
        (x / 2.0)?.broadcast_add(&mean)
    }

    fn context_repeats(&self) -> bool {
        true
    }

    fn fits_in_memory(&self, shape: &[usize]) -> bool {
        shape[0] <= self.limit
    }
}

fn entry(value: f32, tokens: usize) -> Entry {
    Entry::new(Tensor::full(value, (1, tokens, 2), &Device::Cpu).unwrap())
}

fn noise(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn predict(model: &Halving, lists: &[Conditioning], x: &Tensor) -> Vec<Tensor> {
    let run = Run::new(x.dims(), &Device::Cpu);
    let roles: Vec<_> = lists.iter().map(|list| (ListRole::Positive, list)).collect();
    let resolved = resolve_lists(model, &roles, &run).unwrap();
    let options = ForwardOptions::default();
    let lists: Vec<_> = resolved.iter().map(|entries| Some(List { entries, options: &options })).collect();
    predict_lists(model, &HookState::default(), &lists, x, 1.0).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_vec0::<f32>().unwrap()
}

proptest! {
    #[test]
    fn batched_evaluation_equals_single(
        batch in 1usize..3,
        height in 1usize..20,
        width in 1usize..20,
        tokens in prop::collection::vec(1usize..9, 1..6),
        areas in prop::collection::vec((0usize..12, 0usize..12, 1usize..12, 1usize..12), 6),
        strength in 0.1f64..3.0,
    ) {
        let entries = tokens.iter().zip(&areas).enumerate().map(|(i, (&tokens, &(y, x, h, w)))| {
            let mut entry = entry(i as f32 - 1.0, tokens);
            if i % 2 == 1 {
                entry.options.set_area(Area::Cells(Cells { size: vec![h, w], offset: vec![y, x] }), strength);
            }
            entry
        });
        let positive: Conditioning = entries.collect();
        let lists = [positive, vec![entry(0.3, 4)]];
        let x = noise(&[batch, 4, height, width]);
        let together = predict(&Halving::new(usize::MAX), &lists, &x);
        let alone = predict(&Halving::new(batch), &lists, &x);
        for (a, b) in together.iter().zip(&alone) {
            prop_assert!(distance(a, b) < 1e-5);
        }
    }

    #[test]
    fn strength_of_a_lone_entry_cancels(strength in 0.01f64..10.0) {
        let x = noise(&[1, 4, 8, 8]);
        let mut weighted = entry(0.5, 3);
        weighted.options.strength = strength;
        let model = Halving::new(usize::MAX);
        let plain = predict(&model, &[vec![entry(0.5, 3)]], &x);
        let weighted = predict(&model, &[vec![weighted]], &x);
        prop_assert!(distance(&plain[0], &weighted[0]) < 1e-5);
    }
}

#[test]
fn nothing_active_gives_zeros() {
    let x = noise(&[1, 4, 8, 8]);
    let mut late = entry(0.5, 1);
    late.options.start_percent = Some(1.0);
    let mut outside = entry(0.5, 1);
    outside.options.set_area(Area::from_pixels(64, 64, 64, 0), 1.0);
    let out = predict(&Halving::new(9), &[vec![late], vec![outside], vec![]], &x);
    for prediction in out {
        assert_eq!(distance(&prediction, &x.zeros_like().unwrap()), 0.0);
    }
}

#[test]
fn default_entries_fill_what_is_left() {
    let x = noise(&[1, 4, 32, 8]).zeros_like().unwrap();
    let mut upper = entry(1.0, 1);
    upper.options.set_area(Area::from_pixels(128, 64, 0, 0), 1.0);
    let mut rest = entry(-1.0, 1);
    rest.options.default = true;
    let out = predict(&Halving::new(9), &[vec![upper, rest]], &x).remove(0);
    let at = |y: usize| out.narrow(2, y, 1).unwrap().mean_all().unwrap().to_vec0::<f32>().unwrap();
    assert!((at(0) - 1.0).abs() < 1e-6);
    assert!((at(31) + 1.0).abs() < 1e-6);
}

#[test]
fn regional_entries_get_counterparts() {
    let model = Halving::new(9);
    let mut regional = entry(1.0, 1);
    regional.options.set_area(Area::from_pixels(64, 64, 0, 0), 1.0);
    let (positive, negative) = (vec![regional], vec![entry(0.0, 1)]);
    let lists = [(ListRole::Positive, &positive), (ListRole::Negative, &negative)];
    let resolved = resolve_lists(&model, &lists, &Run::new(&[1, 4, 16, 16], &Device::Cpu)).unwrap();
    assert_eq!(resolved[1].len(), 2);
    assert_eq!(resolved[1][1].area, resolved[0][0].area);
}

#[test]
fn masks_without_pixels_are_refused() {
    let mut masked = entry(1.0, 1);
    masked.options.set_mask(Tensor::zeros((0, 4, 4), DType::F32, &Device::Cpu).unwrap(), 1.0, true);
    let list = vec![masked];
    let run = Run::new(&[1, 4, 8, 8], &Device::Cpu);
    assert!(resolve_lists(&Halving::new(9), &[(ListRole::Positive, &list)], &run).is_err());
}

#[test]
fn areas_follow_the_latent_s_axes() {
    let area = Area::Fraction { size: vec![0.5, 0.0], offset: vec![0.25, 0.5] };
    let cells = area.resolve(&[3, 10, 10]);
    assert_eq!(cells, Cells { size: vec![3, 5, 1], offset: vec![0, 2, 5] });
    let frames = Area::Cells(Cells { size: vec![1, 2, 3], offset: vec![4, 5, 6] });
    assert_eq!(frames.resolve(&[8, 8]), Cells { size: vec![2, 3], offset: vec![5, 6] });
}
