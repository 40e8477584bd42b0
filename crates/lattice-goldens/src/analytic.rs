//! The closed-form denoiser that stands in for a network: the posterior mean of a mixture of three normal
//! distributions per element, whose means shift with the conditioning value.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor};
use lattice_diffusion::conditioning::Entry;
use lattice_diffusion::model::{Call, ListRole, ModelInputs, NoiseModel, Run};
use lattice_diffusion::model_sampling::SigmaMapKind;
use lattice_diffusion::{ModelSampling, Prediction, SamplingSettings};
use serde_json::Value as Json;

/// The denoiser with the noise levels of one of the models that an index lists.
pub struct Analytic {
    sampling: ModelSampling,
    weights: [f64; 3],
    means: [f64; 3],
    variances: [f64; 3],
    channels: usize,
}

impl Analytic {
    /// `denoiser` is the index's entry of that name, `channels` the latent's.
    pub fn new(denoiser: &Json, model: &str, channels: usize) -> Result<Self> {
        let three = |name: &str| -> Result<[f64; 3]> {
            let list: Vec<f64> =
                denoiser[name].as_array().into_iter().flatten().filter_map(Json::as_f64).collect();
            list.try_into().ok().with_context(|| format!("denoiser.{name}"))
        };
        let settings = settings(&denoiser["models"][model]).with_context(|| format!("model {model}"))?;
        Ok(Self {
            sampling: ModelSampling::new(&settings)?,
            weights: three("weights")?,
            means: three("means")?,
            variances: three("variances")?,
            channels,
        })
    }

    /// D for one element of a channel at conditioning value a.
    fn element(&self, x: f64, channel: usize, sigma: f64, a: f64) -> f64 {
        let alpha = self.sampling.alpha(sigma);
        let parts: [(f64, f64); 3] = std::array::from_fn(|k| {
            let mean = self.means[k] + 0.1 * (channel % 4) as f64 + a;
            let variance = alpha * alpha * self.variances[k] + sigma * sigma;
            let distance = x - alpha * mean;
            let log_density = self.weights[k].ln() - 0.5 * (distance * distance / variance + variance.ln());
            (log_density, mean + alpha * self.variances[k] / variance * distance)
        });
        let highest = parts.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let (total, sum) = parts.iter().fold((0.0, 0.0), |(total, sum), (log, mean)| {
            let density = (log - highest).exp();
            (total + density, sum + density * mean)
        });
        sum / total
    }
}

/// Settings from a model's entry in an index.
fn settings(model: &Json) -> Result<SamplingSettings> {
    let number = |name: &str| model[name].as_f64();
    let continuous = |kind, prediction| {
        SamplingSettings::continuous(
            kind,
            prediction,
            number("sigma_min").unwrap_or(0.002),
            number("sigma_max").unwrap_or(120.0),
            number("sigma_data").unwrap_or(1.0),
        )
    };
    let discrete = |prediction| {
        let mut settings = SamplingSettings::new(SigmaMapKind::Discrete, prediction);
        settings.zsnr = model["zsnr"] == true;
        settings
    };
    Ok(match model["kind"].as_str().context("no kind")? {
        "EPS" => discrete(Prediction::Eps),
        "V_PREDICTION" => discrete(Prediction::V),
        "V_PREDICTION_EDM" => continuous(SigmaMapKind::ContinuousEdm, Prediction::V),
        "FLOW" => {
            SamplingSettings::flow(number("shift").unwrap_or(1.0), number("multiplier").unwrap_or(1000.0))
        }
        "FLUX" => SamplingSettings::flux(number("shift").unwrap_or(1.15)),
        "FLOW_COSMOS" => continuous(SigmaMapKind::CosmosRflow, Prediction::CosmosRflow),
        other => bail!("unknown kind {other}"),
    })
}

impl NoiseModel for Analytic {
    fn sampling(&self) -> &ModelSampling {
        &self.sampling
    }

    fn latent_channels(&self) -> usize {
        self.channels
    }

    fn resolve(&self, entry: &Entry, _role: ListRole, _run: &Run) -> candle_core::Result<ModelInputs> {
        Ok(ModelInputs { context: Some(entry.tensor.clone()), ..ModelInputs::default() })
    }

    fn denoised(
        &self,
        x: &Tensor,
        sigma: f64,
        inputs: &ModelInputs,
        _call: Call<'_>,
    ) -> candle_core::Result<Tensor> {
        let Some(context) = &inputs.context else { candle_core::bail!("no conditioning value") };
        let a = context
            .to_dtype(DType::F64)?
            .flatten_from(1)?
            .narrow(1, 0, 1)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        let (batch, channels) = (x.dim(0)?, x.dim(1)?);
        let item = (x.elem_count() / batch.max(1)).max(1);
        let plane = (item / channels.max(1)).max(1);
        // The reference computes with the sigma that it hands its models in single precision.
        let sigma = f64::from(sigma as f32);
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let values = values.iter().enumerate();
        let out: Vec<f32> = values
            .map(|(i, &v)| self.element(f64::from(v), i % item / plane, sigma, a[i / item]) as f32)
            .collect();
        Tensor::from_vec(out, x.shape(), x.device())
    }

    fn context_repeats(&self) -> bool {
        true
    }
}
