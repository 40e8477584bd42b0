//! The stages at which a model's patches act.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use lattice_models::ForwardOptions;

use crate::ModelSampling;
use crate::conditioning::Conditioning;
use crate::model::{ListRole, ModelWrapper, Reuse};

/// The model call that is being guided.
pub struct Step<'a> {
    /// Noisy latent, [B, C, spatial...].
    pub x: &'a Tensor,
    /// Noise level.
    pub sigma: f64,
    /// Guidance scale.
    pub cfg: f64,
    /// The model's noise levels.
    pub sampling: &'a ModelSampling,
    /// Channels of the model's latent.
    pub latent_channels: usize,
    /// Evaluates further conditionings at this x and sigma.
    pub evaluate: &'a Evaluate<'a>,
    /// Evaluates the list of one of the predictions once more, on another x or a changed network.
    pub again: &'a Again<'a>,
}

/// Evaluates a conditioning of its own.
pub type Evaluate<'a> = dyn Fn(&Conditioning) -> Result<Tensor> + 'a;

/// Evaluates a list once more, at the same noise level; None if the guider has no such list.
pub type Again<'a> = dyn Fn(ListRole, &Tensor, &dyn Fn(&mut ForwardOptions)) -> Result<Option<Tensor>> + 'a;

/// Denoised predictions before guidance.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// Of the positive list.
    pub cond: Tensor,
    /// Of the negative list; zeros if it was not evaluated.
    pub uncond: Tensor,
    /// Whether it was.
    pub uncond_evaluated: bool,
}

/// The guided prediction and what it was made of.
#[derive(Clone, Debug)]
pub struct Combined {
    /// D.
    pub denoised: Tensor,
    /// C and U.
    pub predictions: Predictions,
}

/// Changes predictions before guidance.
pub trait PreCfg: Debug + Send + Sync {
    /// # Errors
    /// If the tensors' shapes do not allow it.
    fn apply(&self, step: &Step<'_>, predictions: &mut Predictions) -> Result<()>;
}

/// Replaces `D = U + g (C - U)`.
pub trait CfgFunction: Debug + Send + Sync {
    /// # Errors
    /// If the tensors' shapes do not allow it.
    fn combine(&self, step: &Step<'_>, predictions: &Predictions) -> Result<Tensor>;
}

/// Changes the guided prediction.
pub trait PostCfg: Debug + Send + Sync {
    /// # Errors
    /// If the tensors' shapes do not allow it.
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor>;
}

/// Changes the network's inner workings.
pub trait NetworkChange: Debug + Send + Sync {
    /// Changes what a call at a noise level is made with.
    fn apply(&self, sampling: &ModelSampling, sigma: f64, options: &mut ForwardOptions);

    /// Whether only the network that predicts for the negative list is changed. Such a list is evaluated by itself.
    fn negative_only(&self) -> bool {
        false
    }
}

/// A model's changes to guidance, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Patches {
    /// In the network.
    pub network: Vec<Arc<dyn NetworkChange>>,
    /// Before guidance.
    pub pre: Vec<Arc<dyn PreCfg>>,
    /// Instead of the plain formula: the last one set.
    pub cfg: Option<Arc<dyn CfgFunction>>,
    /// After guidance.
    pub post: Vec<Arc<dyn PostCfg>>,
    /// Evaluate the negative list even where the scale is 1.
    pub always_evaluate_uncond: bool,
    /// Around the model, the last one outermost.
    pub wrappers: Vec<Arc<dyn ModelWrapper>>,
    /// Guided predictions that are left out where they can be told from earlier ones.
    pub reuse: Option<Reuse>,
    /// Differential diffusion (arXiv 2306.00950): the denoise mask is compared with the time; how much of the binary
    /// mask goes into the result.
    pub differential_diffusion: Option<f64>,
}

impl Patches {
    /// How the network works for a list at a noise level.
    pub(super) fn options(&self, role: ListRole, sampling: &ModelSampling, sigma: f64) -> ForwardOptions {
        let mut options = ForwardOptions::default();
        for change in self.network.iter().filter(|c| role == ListRole::Negative || !c.negative_only()) {
            change.apply(sampling, sigma, &mut options);
        }
        options
    }

    /// Whether the negative list is evaluated by a network of its own.
    pub(super) fn separate(&self) -> bool {
        self.network.iter().any(|change| change.negative_only())
    }

    /// The formula (or what replaces it) and the stages behind it.
    pub(super) fn combine(&self, step: &Step<'_>, predictions: Predictions) -> Result<Combined> {
        let denoised = match &self.cfg {
            Some(function) => function.combine(step, &predictions)?,
            None => plain(&predictions, step.cfg)?,
        };
        self.post_process(step, Combined { denoised, predictions })
    }

    pub(super) fn post_process(&self, step: &Step<'_>, mut combined: Combined) -> Result<Combined> {
        for patch in &self.post {
            combined.denoised = patch.apply(step, &combined)?;
        }
        Ok(combined)
    }
}

/// `U + g (C - U)`.
pub(super) fn plain(p: &Predictions, cfg: f64) -> Result<Tensor> {
    &p.uncond + ((&p.cond - &p.uncond)? * cfg)?
}
