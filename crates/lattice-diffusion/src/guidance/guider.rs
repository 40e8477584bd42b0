//! Which conditionings are evaluated, and how they are combined.

use candle_core::{Result, Tensor};
use lattice_models::ForwardOptions;

use super::patch::{Combined, Predictions, Step};
use super::{Model, is_one, perp_neg};
use crate::conditioning::{Conditioning, HookState, List, Resolved, predict_lists, resolve_lists};
use crate::model::{self, ListRole, Sequence};
use crate::{Denoised, Denoiser};

/// Conditionings and scales.
#[derive(Clone, Debug)]
pub enum GuiderKind {
    /// The positive prediction as it is.
    Basic {
        /// What to show.
        positive: Conditioning,
    },
    /// Classifier-free guidance (arXiv 2207.12598).
    Cfg {
        /// What to show.
        positive: Conditioning,
        /// What to avoid.
        negative: Conditioning,
        /// Guidance scale.
        cfg: f64,
    },
    /// Two positive conditionings (arXiv 2211.09800, section 3.2).
    Dual {
        /// First.
        cond1: Conditioning,
        /// Second.
        cond2: Conditioning,
        /// What to avoid.
        negative: Conditioning,
        /// Scale of the first against the second.
        cfg_conds: f64,
        /// Scale of the second against the negative one.
        cfg_cond2_negative: f64,
        /// Guide the first against the second, then the result against the negative one.
        nested: bool,
    },
    /// Perpendicular negative guidance (arXiv 2304.04968).
    PerpNeg {
        /// What to show.
        positive: Conditioning,
        /// What to avoid.
        negative: Conditioning,
        /// The empty prompt.
        empty: Conditioning,
        /// Guidance scale.
        cfg: f64,
        /// Scale of the negative direction.
        neg_scale: f64,
    },
}

/// A model with conditionings.
#[derive(Clone)]
pub struct Guider {
    /// The model.
    pub model: Model,
    /// How it is guided.
    pub kind: GuiderKind,
}

impl Guider {
    /// Prepares one run: resolves the conditionings against its latent.
    ///
    /// # Errors
    /// If a conditioning does not fit the model or the latent.
    pub fn start(&self, run: model::Run) -> Result<GuidedRun> {
        use ListRole::{Negative, Positive};
        let lists: Vec<(ListRole, &Conditioning)> = match &self.kind {
            GuiderKind::Basic { positive } => vec![(Positive, positive)],
            GuiderKind::Cfg { positive, negative, .. } => vec![(Positive, positive), (Negative, negative)],
            GuiderKind::Dual { cond1, cond2, negative, .. } => {
                vec![(Positive, cond1), (Positive, cond2), (Negative, negative)]
            }
            GuiderKind::PerpNeg { positive, negative, empty, .. } => {
                vec![(Positive, positive), (Negative, empty), (Negative, negative)]
            }
        };
        let resolved = resolve_lists(self.model.base.as_ref(), &lists, &run)?;
        let lists = lists.into_iter().map(|(role, _)| role).zip(resolved).collect();
        let mut guider = self.clone();
        for wrapper in &self.model.patches.wrappers {
            guider.model.base = wrapper.wrap(guider.model.base);
        }
        Ok(GuidedRun {
            guider,
            lists,
            latent: run,
            hooks: HookState::default(),
            sequence: Sequence::default(),
        })
    }
}

/// One run of a guider.
pub struct GuidedRun {
    guider: Guider,
    lists: Vec<(ListRole, Vec<Resolved>)>,
    latent: model::Run,
    hooks: HookState,
    /// Guided predictions so far, where some are left out.
    sequence: Sequence,
}

/// Which lists the predictions C and U stem from.
struct Roles {
    positive: usize,
    negative: Option<usize>,
}

impl GuidedRun {
    /// Predictions of the lists for which `wanted` is true; zeros for the others.
    fn predict(&self, x: &Tensor, sigma: f64, wanted: &[bool]) -> Result<Vec<Tensor>> {
        let Model { base, patches } = &self.guider.model;
        let options = |role| patches.options(role, base.sampling(), sigma);
        let positive = options(ListRole::Positive);
        let negative = patches.separate().then(|| options(ListRole::Negative));
        let lists = self.lists.iter().zip(wanted).map(|((role, entries), wanted)| {
            let options = match (role, &negative) {
                (ListRole::Negative, Some(negative)) => negative,
                _ => &positive,
            };
            wanted.then_some(List { entries, options })
        });
        predict_lists(base.as_ref(), &self.hooks, &lists.collect::<Vec<_>>(), x, sigma)
    }

    /// Prediction of one list on a network that is changed further.
    fn predict_again(
        &self,
        list: usize,
        x: &Tensor,
        sigma: f64,
        change: &dyn Fn(&mut ForwardOptions),
    ) -> Result<Option<Tensor>> {
        let Model { base, patches } = &self.guider.model;
        let Some((role, entries)) = self.lists.get(list) else { return Ok(None) };
        let mut options = patches.options(*role, base.sampling(), sigma);
        change(&mut options);
        let list = List { entries, options: &options };
        Ok(predict_lists(base.as_ref(), &self.hooks, &[Some(list)], x, sigma)?.pop())
    }

    fn combined(&self, x: &Tensor, sigma: f64, need_uncond: bool) -> Result<Combined> {
        let model = &self.guider.model;
        let patches = &model.patches;
        let force = need_uncond || patches.always_evaluate_uncond;
        let evaluate = |conditioning: &Conditioning| {
            let role = ListRole::Negative;
            let lists = resolve_lists(model.base.as_ref(), &[(role, conditioning)], &self.latent)?;
            let options = patches.options(role, model.base.sampling(), sigma);
            let list = List { entries: &lists[0], options: &options };
            Ok(predict_lists(model.base.as_ref(), &self.hooks, &[Some(list)], x, sigma)?.swap_remove(0))
        };
        let roles = match &self.guider.kind {
            GuiderKind::Basic { .. } => Roles { positive: 0, negative: None },
            GuiderKind::Cfg { .. } | GuiderKind::Dual { nested: true, .. } => {
                Roles { positive: 0, negative: Some(1) }
            }
            GuiderKind::Dual { nested: false, .. } => Roles { positive: 1, negative: Some(2) },
            GuiderKind::PerpNeg { .. } => Roles { positive: 0, negative: Some(2) },
        };
        let again = |role, x: &Tensor, change: &dyn Fn(&mut ForwardOptions)| {
            let list = match role {
                ListRole::Positive => Some(roles.positive),
                ListRole::Negative => roles.negative,
            };
            list.map_or(Ok(None), |list| self.predict_again(list, x, sigma, change))
        };
        let step = |cfg| Step {
            x,
            sigma,
            cfg,
            sampling: model.base.sampling(),
            latent_channels: model.base.latent_channels(),
            evaluate: &evaluate,
            again: &again,
        };
        match &self.guider.kind {
            GuiderKind::Basic { .. } => {
                let cond = self.predict(x, sigma, &[true])?.swap_remove(0);
                guide(
                    model,
                    &step(1.0),
                    Predictions { uncond: cond.zeros_like()?, cond, uncond_evaluated: false },
                )
            }
            GuiderKind::Cfg { cfg, .. } => {
                let with_uncond = force || !is_one(*cfg);
                let [cond, uncond] = lists(self.predict(x, sigma, &[true, with_uncond])?)?;
                guide(model, &step(*cfg), Predictions { cond, uncond, uncond_evaluated: with_uncond })
            }
            GuiderKind::Dual { cfg_conds, cfg_cond2_negative, nested: false, .. } => {
                let with_negative = force || !is_one(*cfg_cond2_negative);
                let with_second = with_negative || !is_one(*cfg_conds);
                let wanted = [true, with_second, with_negative];
                let [first, second, negative] = lists(self.predict(x, sigma, &wanted)?)?;
                let predictions =
                    Predictions { cond: second.clone(), uncond: negative, uncond_evaluated: with_negative };
                let mut combined = patches.combine(&step(*cfg_cond2_negative), predictions)?;
                combined.denoised = (combined.denoised + ((first - second)? * *cfg_conds)?)?;
                Ok(combined)
            }
            GuiderKind::Dual { cfg_conds, cfg_cond2_negative, nested: true, .. } => {
                let [first, second, negative] = lists(self.predict(x, sigma, &[true; 3])?)?;
                let predictions = Predictions { cond: first, uncond: second, uncond_evaluated: true };
                let mut combined = patches.combine(&step(*cfg_conds), predictions)?;
                let direction = ((&combined.denoised - &negative)? * *cfg_cond2_negative)?;
                combined.denoised = (&negative + direction)?;
                Ok(combined)
            }
            GuiderKind::PerpNeg { cfg, neg_scale, .. } => {
                let with_negative = force || *neg_scale != 0.0;
                let with_empty = with_negative || !is_one(*cfg);
                let [cond, empty, uncond] =
                    lists(self.predict(x, sigma, &[true, with_empty, with_negative])?)?;
                let denoised = perp_neg(&cond, &uncond, &empty, *cfg, *neg_scale)?;
                let predictions = Predictions { cond, uncond, uncond_evaluated: with_negative };
                patches.post_process(&step(*cfg), Combined { denoised, predictions })
            }
        }
    }
}

/// The whole pipeline of patches.
fn guide(model: &Model, step: &Step<'_>, mut predictions: Predictions) -> Result<Combined> {
    for patch in &model.patches.pre {
        patch.apply(step, &mut predictions)?;
    }
    model.patches.combine(step, predictions)
}

/// As many predictions as the guider has lists.
fn lists<const N: usize>(predictions: Vec<Tensor>) -> Result<[Tensor; N]> {
    let n = predictions.len();
    predictions.try_into().map_err(|_| candle_core::Error::Msg(format!("{n} predictions for {N} lists")))
}

impl Denoiser for GuidedRun {
    fn denoise(&mut self, x: &Tensor, sigma: f64, need_uncond: bool) -> Result<Denoised> {
        // Samplers that need the unconditional prediction too get all of them.
        if let (Some(reuse), false) = (self.guider.model.patches.reuse, need_uncond) {
            let in_range = reuse.range.contains(self.guider.model.base.sampling(), sigma);
            let mut sequence = std::mem::take(&mut self.sequence);
            let denoised =
                sequence.output(&reuse, in_range, x, || Ok(self.combined(x, sigma, false)?.denoised));
            self.sequence = sequence;
            return Ok(Denoised { denoised: denoised?, uncond: None });
        }
        let Combined { denoised, predictions } = self.combined(x, sigma, need_uncond)?;
        let uncond = (predictions.uncond_evaluated || need_uncond).then_some(predictions.uncond);
        Ok(Denoised { denoised, uncond })
    }
}
