//! Leaving out calls whose result can be told from earlier ones (EasyCache, Zhou et al. 2025, arXiv 2507.02860).
//!
//! What a call adds to its input changes slowly in the middle of sampling. How much the output will have changed is estimated from
//! the input's change, by the rate between the two at the last calls that were made; while the estimates since then stay below a
//! threshold, the last difference is added again instead of calling.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Result, Tensor};

use super::{Call, ListRole, ModelInputs, ModelWrapper, NoiseModel, Run};
use crate::ModelSampling;
use crate::conditioning::{ActiveHook, Entry};
use crate::guidance::Range;
use crate::latent_format::LatentFormat;

/// When calls are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reuse {
    /// Estimated relative change of the output, summed up since the last call, below which none is made.
    pub threshold: f64,
    /// The part of the sampling in which calls may be left out.
    pub range: Range,
    /// Whether to log what was left out.
    pub verbose: bool,
}

/// What is known of a sequence of calls.
#[derive(Debug, Default)]
pub struct Sequence {
    /// The last input, and the mean size of the last output.
    last: Option<(Tensor, f64)>,
    /// Output less input of the last call that was made, and that output.
    made: Option<(Tensor, Tensor)>,
    /// Change of the output by change of the input.
    rate: Option<f64>,
    sum: f64,
    left_out: usize,
}

fn mean_size(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.abs()?.mean_all()?.to_dtype(DType::F32)?.to_vec0::<f32>()?))
}

impl Sequence {
    /// The output for an input of the same shape as the output: that of `call`, or what the last one is taken to have become.
    ///
    /// # Errors
    /// Those of `call`.
    pub fn output(
        &mut self,
        reuse: &Reuse,
        in_range: bool,
        input: &Tensor,
        call: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let fits = |t: &Tensor| t.dims() == input.dims();
        let change = match &self.last {
            Some((last, size)) if fits(last) => Some((mean_size(&(input - last)?)?, *size)),
            _ => None,
        };
        if let (true, Some((change, size)), Some(rate), Some((difference, _))) =
            (in_range, change, self.rate, &self.made)
            && size > 0.0
            && fits(difference)
        {
            self.sum += rate * change / size;
            if self.sum < reuse.threshold {
                self.left_out += 1;
                let output = (input + difference)?;
                self.last = Some((input.clone(), mean_size(&output)?));
                if reuse.verbose {
                    tracing::info!(
                        "left out a call ({} so far), estimated change {:.4}",
                        self.left_out,
                        self.sum
                    );
                }
                return Ok(output);
            }
        }
        self.sum = 0.0;
        let output = call()?;
        if let (Some((change, _)), Some((_, made))) = (change, &self.made)
            && change > 0.0
            && made.dims() == output.dims()
        {
            self.rate = Some(mean_size(&(&output - made)?)? / change);
        }
        self.last = Some((input.clone(), mean_size(&output)?));
        self.made = (output.dims() == input.dims())
            .then(|| Ok::<_, candle_core::Error>(((&output - input)?, output.clone())))
            .transpose()?;
        Ok(output)
    }
}

impl ModelWrapper for Reuse {
    fn wrap(&self, model: Arc<dyn NoiseModel>) -> Arc<dyn NoiseModel> {
        Arc::new(Reusing { model, reuse: *self, calls: Arc::default() })
    }
}

/// A model whose calls are left out where they can be.
struct Reusing {
    model: Arc<dyn NoiseModel>,
    reuse: Reuse,
    calls: Arc<Mutex<Calls>>,
}

/// The calls of one run. A noise level may take several (prompts that share none): the first of a level follows the first of the
/// level before, and so on.
#[derive(Default)]
struct Calls {
    sigma: f64,
    next: usize,
    sequences: Vec<Sequence>,
}

impl NoiseModel for Reusing {
    fn sampling(&self) -> &ModelSampling {
        self.model.sampling()
    }

    fn latent_channels(&self) -> usize {
        self.model.latent_channels()
    }

    fn latent_format(&self) -> Option<&'static LatentFormat> {
        self.model.latent_format()
    }

    fn resolve(&self, entry: &Entry, role: ListRole, run: &Run) -> Result<ModelInputs> {
        self.model.resolve(entry, role, run)
    }

    fn denoised(&self, x: &Tensor, sigma: f64, inputs: &ModelInputs, call: Call<'_>) -> Result<Tensor> {
        if sigma <= 0.0 {
            return self.model.denoised(x, sigma, inputs, call);
        }
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.sigma.to_bits() != sigma.to_bits() {
            (calls.sigma, calls.next) = (sigma, 0);
        }
        let index = calls.next;
        calls.next += 1;
        if index >= calls.sequences.len() {
            calls.sequences.push(Sequence::default());
        }
        // The network's output up to sign: the direction from the sample to the prediction.
        let input = self.sampling().network_input(x, sigma)?;
        let in_range = self.reuse.range.contains(self.sampling(), sigma);
        let output = calls.sequences[index].output(&self.reuse, in_range, &input, || {
            (x - self.model.denoised(x, sigma, inputs, call)?)? / sigma
        })?;
        x - (output * sigma)?
    }

    fn hooked(&self, hooks: &[ActiveHook]) -> Result<Arc<dyn NoiseModel>> {
        let model = self.model.hooked(hooks)?;
        Ok(Arc::new(Self { model, reuse: self.reuse, calls: self.calls.clone() }))
    }

    fn context_repeats(&self) -> bool {
        self.model.context_repeats()
    }

    fn fits_in_memory(&self, shape: &[usize]) -> bool {
        self.model.fits_in_memory(shape)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn reuse(threshold: f64) -> Reuse {
        Reuse { threshold, range: Range { start: 0.0, end: 1.0 }, verbose: false }
    }

    /// Calls made for inputs that change by `step` each, of a network that adds a constant.
    fn calls(threshold: f64, in_range: bool, step: f64) -> (usize, Vec<f32>) {
        let (mut sequence, mut made, mut outputs) = (Sequence::default(), 0, Vec::new());
        for i in 0..10 {
            let input = Tensor::full(1.0 + (i as f64 * step) as f32, (1, 2, 2, 2), &Device::Cpu).unwrap();
            let output = sequence.output(&reuse(threshold), in_range, &input, || {
                made += 1;
                &input + 3.0
            });
            outputs.push(output.unwrap().mean_all().unwrap().to_vec0::<f32>().unwrap());
        }
        (made, outputs)
    }

    #[test]
    fn what_adds_the_same_every_time_is_told_exactly() {
        let (all, exact) = calls(0.0, true, 0.1);
        let (some, told) = calls(0.05, true, 0.1);
        assert_eq!(all, 10);
        assert!((3..7).contains(&some), "{some}");
        assert!(exact.iter().zip(&told).all(|(a, b)| (a - b).abs() < 1e-5));
        // Two calls give the first rate; slower changes allow more to be left out.
        assert_eq!(calls(0.2, true, 0.001).0, 2);
        assert_eq!(calls(0.2, false, 0.001).0, 10, "outside of the range every call is made");
    }

    #[test]
    fn another_shape_starts_anew() {
        let mut sequence = Sequence::default();
        for side in [2usize, 2, 3, 3] {
            let input = Tensor::ones((1, 1, side, side), DType::F32, &Device::Cpu).unwrap();
            let output = sequence.output(&reuse(9.0), true, &input, || &input + 1.0).unwrap();
            assert_eq!(output.dims(), input.dims());
        }
    }
}
