//! Hooks: changes of a model's weights that apply only where the conditionings that carry them are evaluated, and whose
//! strength may follow the sampling.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;

use crate::ModelSampling;
use crate::model::NoiseModel;

/// Where the changed weights come from (an adapter file, another checkpoint); only who patches weights looks inside.
pub type HookSource = Arc<dyn Any + Send + Sync>;

/// A change of weights.
#[derive(Clone)]
pub struct Hook {
    /// What changes them.
    pub source: HookSource,
    /// Strength on the diffusion model.
    pub strength_model: f64,
    /// Strength on the text encoders.
    pub strength_clip: f64,
    /// Factor of both in the course of sampling; none: 1 throughout.
    pub keyframes: Keyframes,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("strength_model", &self.strength_model)
            .field("strength_clip", &self.strength_clip)
            .field("keyframes", &self.keyframes)
            .finish_non_exhaustive()
    }
}

/// A factor from a time on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keyframe {
    /// Share of the sampling at which it starts.
    pub start_percent: f64,
    /// The factor.
    pub strength: f64,
    /// Steps that it lasts at least, however late the next one is to start.
    pub guaranteed_steps: usize,
}

/// Keyframes in the order of their starts. The first one holds from the beginning.
#[derive(Clone, Debug, Default)]
pub struct Keyframes(Arc<[Keyframe]>);

impl Keyframes {
    /// Sorted by their starts; of equal starts the order given decides.
    pub fn new(mut keyframes: Vec<Keyframe>) -> Self {
        keyframes.sort_by(|a, b| a.start_percent.total_cmp(&b.start_percent));
        Self(keyframes.into())
    }

    /// In order.
    pub fn list(&self) -> &[Keyframe] {
        &self.0
    }

    /// The factor at a share of the sampling, guarantees aside.
    pub fn strength_at(&self, percent: f64) -> f64 {
        let reached = self.0.iter().rev().find(|keyframe| keyframe.start_percent <= percent);
        reached.or(self.0.first()).map_or(1.0, |keyframe| keyframe.strength)
    }
}

/// A hook at one noise level.
#[derive(Clone)]
pub struct ActiveHook {
    /// What changes weights.
    pub source: HookSource,
    /// How strongly.
    pub strength: f64,
}

impl PartialEq for ActiveHook {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.strength.to_bits() == other.strength.to_bits()
    }
}

/// What a run knows of its hooks: how far their keyframes are, and the models with their weights.
#[derive(Default)]
pub struct HookState(Mutex<State>);

#[derive(Default)]
struct State {
    sigma: Option<f64>,
    clocks: Vec<Clock>,
    models: Vec<Variant>,
}

/// A model with changed weights, and the noise level that it was last used at.
struct Variant {
    hooks: Vec<ActiveHook>,
    model: Arc<dyn NoiseModel>,
    sigma: Option<f64>,
}

/// How far the keyframes of one hook are.
struct Clock {
    keyframes: Keyframes,
    current: usize,
    /// Steps that the current keyframe was used for.
    steps: usize,
}

impl Clock {
    /// Goes on to the next step. A keyframe is left once it had its guaranteed steps and the next has started.
    fn step(&mut self, sampling: &ModelSampling, sigma: f64) {
        let frames = self.keyframes.list();
        while self.steps >= frames[self.current].guaranteed_steps
            && let Some(next) = frames.get(self.current + 1)
            && sampling.percent_to_sigma(next.start_percent) as f32 >= sigma as f32
        {
            (self.current, self.steps) = (self.current + 1, 0);
        }
        self.steps += 1;
    }
}

impl HookState {
    /// The hooks that are in force at a noise level; none without strength is.
    pub(super) fn active(&self, hooks: &[Hook], sampling: &ModelSampling, sigma: f64) -> Vec<ActiveHook> {
        if hooks.is_empty() {
            return Vec::new();
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.sigma != Some(sigma) {
            state.sigma = Some(sigma);
            state.clocks.iter_mut().for_each(|clock| clock.step(sampling, sigma));
        }
        let active = hooks.iter().map(|hook| ActiveHook {
            source: hook.source.clone(),
            strength: hook.strength_model * state.factor(&hook.keyframes, sampling, sigma),
        });
        active.filter(|hook| hook.strength != 0.0).collect()
    }

    /// The model with the weights that hooks make of it. Models that no earlier or present step shares are dropped.
    pub(super) fn model(&self, model: &dyn NoiseModel, hooks: &[ActiveHook]) -> Result<Arc<dyn NoiseModel>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sigma = state.sigma;
        if let Some(known) = state.models.iter_mut().find(|known| known.hooks == hooks) {
            known.sigma = sigma;
            return Ok(known.model.clone());
        }
        state.models.retain(|known| known.sigma == sigma);
        let hooked = model.hooked(hooks)?;
        state.models.push(Variant { hooks: hooks.to_vec(), model: hooked.clone(), sigma });
        Ok(hooked)
    }
}

impl State {
    /// The factor of a hook's keyframes at the present step.
    fn factor(&mut self, keyframes: &Keyframes, sampling: &ModelSampling, sigma: f64) -> f64 {
        if keyframes.list().is_empty() {
            return 1.0;
        }
        let known = self.clocks.iter().position(|clock| Arc::ptr_eq(&clock.keyframes.0, &keyframes.0));
        let index = known.unwrap_or_else(|| {
            let mut clock = Clock { keyframes: keyframes.clone(), current: 0, steps: 0 };
            clock.step(sampling, sigma);
            self.clocks.push(clock);
            self.clocks.len() - 1
        });
        let clock = &self.clocks[index];
        clock.keyframes.list()[clock.current].strength
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingSettings;

    fn keyframe(start_percent: f64, strength: f64, guaranteed_steps: usize) -> Keyframe {
        Keyframe { start_percent, strength, guaranteed_steps }
    }

    /// The strengths of a hook of strength 2 over the steps of a flow model from 1 to 0.1.
    fn strengths(keyframes: Vec<Keyframe>) -> Vec<f64> {
        let sampling = ModelSampling::new(&SamplingSettings::flow(1.0, 1000.0)).unwrap();
        let keyframes = Keyframes::new(keyframes);
        let hook = Hook { source: Arc::new(()), strength_model: 2.0, strength_clip: 0.0, keyframes };
        let state = HookState::default();
        (1..=10)
            .rev()
            .map(|tenth| {
                let active =
                    |_| state.active(std::slice::from_ref(&hook), &sampling, f64::from(tenth) / 10.0);
                // A second look at the same step changes nothing.
                let [first, second] = [0, 1].map(active);
                assert!(first == second);
                first.first().map_or(0.0, |hook| hook.strength)
            })
            .collect()
    }

    #[test]
    fn keyframes_follow_the_sampling() {
        assert_eq!(strengths(vec![]), [2.0; 10]);
        assert_eq!(strengths(vec![keyframe(0.5, 0.5, 0)]), [1.0; 10], "the first one holds from the start");
        let half = strengths(vec![keyframe(0.5, 0.0, 0), keyframe(0.0, 1.0, 1)]);
        assert_eq!(half, [2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let guaranteed = strengths(vec![keyframe(0.0, 1.0, 2), keyframe(0.0, 3.0, 1), keyframe(0.0, 4.0, 0)]);
        assert_eq!(guaranteed, [2.0, 2.0, 6.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]);
    }

    #[test]
    fn strengths_can_be_told_without_a_run() {
        let keyframes = Keyframes::new(vec![keyframe(0.5, 0.0, 0), keyframe(0.2, 0.7, 1)]);
        let at = [0.0, 0.2, 0.49, 0.5, 1.0].map(|percent| keyframes.strength_at(percent));
        assert_eq!(at, [0.7, 0.7, 0.7, 0.0, 0.0]);
        assert_eq!(Keyframes::default().strength_at(0.3), 1.0);
    }
}
