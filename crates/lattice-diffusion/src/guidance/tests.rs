use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Result, Tensor};

use super::*;
use crate::conditioning::{Conditioning, Entry};
use crate::model::{Call, ListRole, ModelInputs, Run};
use crate::{Denoiser, ModelSampling, SamplingSettings};

/// D = the conditioning's value everywhere; counts the items it was asked for.
struct Constant {
    sampling: ModelSampling,
    items: AtomicUsize,
}

impl NoiseModel for Constant {
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
        self.items.fetch_add(x.dim(0)?, Ordering::Relaxed);
        inputs.context.as_ref().unwrap().reshape(((), 1, 1, 1))?.broadcast_as(x.shape())?.contiguous()
    }
}

fn value(v: f32) -> Conditioning {
    vec![Entry::new(Tensor::full(v, (1, 1, 1), &Device::Cpu).unwrap())]
}

/// Result, uncond and number of evaluated items of one call.
fn call(kind: GuiderKind, patches: Patches, need_uncond: bool) -> (f32, Option<f32>, usize) {
    let sampling = ModelSampling::new(&SamplingSettings::eps()).unwrap();
    let base = Arc::new(Constant { sampling, items: AtomicUsize::new(0) });
    let guider = Guider { model: Model { base: base.clone(), patches }, kind };
    let x = Tensor::ones((1, 4, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut run = guider.start(Run::new(x.dims(), &Device::Cpu)).unwrap();
    let out = run.denoise(&x, 1.0, need_uncond).unwrap();
    let first = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    (first(&out.denoised), out.uncond.as_ref().map(first), base.items.load(Ordering::Relaxed))
}

fn cfg(cfg: f64) -> GuiderKind {
    GuiderKind::Cfg { positive: value(2.0), negative: value(1.0), cfg }
}

#[test]
fn scale_one_evaluates_the_negative_list_only_on_request() {
    assert_eq!(call(cfg(3.0), Patches::default(), false), (4.0, Some(1.0), 2));
    assert_eq!(call(cfg(1.0), Patches::default(), false), (2.0, None, 1));
    assert_eq!(call(cfg(1.0), Patches::default(), true), (2.0, Some(1.0), 2));
    let forced = Patches { always_evaluate_uncond: true, ..Patches::default() };
    assert_eq!(call(cfg(1.0), forced, false).2, 2);
    let basic = GuiderKind::Basic { positive: value(2.0) };
    assert_eq!(call(basic, Patches::default(), true), (2.0, Some(0.0), 1));
}

#[test]
fn patches_act_in_order() {
    let half = |factor| Arc::new(EpsilonScaling { scaling_factor: factor });
    let patches = Patches { post: vec![half(2.0), half(4.0)], ..Patches::default() };
    // D = 4: x - (x - 4) / 8 with x = 1.
    assert_eq!(call(cfg(3.0), patches, false).0, 1.375);
}
