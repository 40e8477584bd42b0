//! Hooks: weights that change only for the conditionings that carry them, on a schedule of their own.

use std::sync::{Arc, OnceLock};

use lattice_diffusion::conditioning::{Hook, Keyframe, Keyframes};
use lattice_graph::{CallContext, Node};

use super::loaders::checkpoint_named;
use crate::Result;
use crate::node::{Choice, node};
use crate::services::{Folders, ModelCache};
use crate::types::{Clip, ClipHooks, Floats, HookFile, HookKeyframes, Hooks, TimestepsRange};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        create_hook_lora,
        create_hook_lora_model_only,
        create_hook_model_as_lora,
        create_hook_model_as_lora_model_only,
        set_hook_keyframes,
        create_hook_keyframe,
        create_hook_keyframes_interpolated,
        create_hook_keyframes_from_floats,
        combine_hooks_2,
        combine_hooks_4,
        combine_hooks_8,
        set_clip_hooks,
        conditioning_timesteps_range,
    ]
}

/// Hooks with one more at the end; one without strength is none.
fn appended(
    previous: Option<Hooks>,
    strengths: [f64; 2],
    file: impl FnOnce() -> Result<HookFile>,
) -> Result<Hooks> {
    let mut hooks = previous.unwrap_or_default();
    if strengths != [0.0; 2] {
        hooks.0.push(Hook {
            source: Arc::new(file()?),
            strength_model: strengths[0],
            strength_clip: strengths[1],
            keyframes: Keyframes::default(),
        });
    }
    Ok(hooks)
}

fn adapter(ctx: &CallContext<'_>, name: &str) -> Result<HookFile> {
    Ok(HookFile::Adapter(ctx.service::<ModelCache>()?.adapter(&*ctx.service::<Folders>()?, name)?))
}

fn checkpoint(ctx: &CallContext<'_>, name: &str) -> Result<HookFile> {
    let checkpoint = checkpoint_named(ctx, name)?;
    Ok(HookFile::Checkpoint { checkpoint, parameters: OnceLock::new() })
}

/// An adapter that applies only to the conditionings that carry the hook.
#[node(
    name = "CreateHookLora",
    title = "Create Hook LoRA",
    category = "advanced/hooks/create",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn create_hook_lora(
    ctx: &CallContext<'_>,
    #[choice(files = "loras")] lora_name: &str,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_model: f64,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_clip: f64,
    prev_hooks: Option<Hooks>,
) -> Result<Hooks> {
    appended(prev_hooks, [strength_model, strength_clip], || adapter(ctx, lora_name))
}

/// An adapter of the diffusion model that applies only to the conditionings that carry the hook.
#[node(
    name = "CreateHookLoraModelOnly",
    title = "Create Hook LoRA (MO)",
    category = "advanced/hooks/create",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn create_hook_lora_model_only(
    ctx: &CallContext<'_>,
    #[choice(files = "loras")] lora_name: &str,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_model: f64,
    prev_hooks: Option<Hooks>,
) -> Result<Hooks> {
    appended(prev_hooks, [strength_model, 0.0], || adapter(ctx, lora_name))
}

/// Another checkpoint, whose weights the conditionings that carry the hook are evaluated with.
#[node(
    name = "CreateHookModelAsLora",
    title = "Create Hook Model as LoRA",
    category = "advanced/hooks/create",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn create_hook_model_as_lora(
    ctx: &CallContext<'_>,
    #[choice(files = "checkpoints")] ckpt_name: &str,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_model: f64,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_clip: f64,
    prev_hooks: Option<Hooks>,
) -> Result<Hooks> {
    appended(prev_hooks, [strength_model, strength_clip], || checkpoint(ctx, ckpt_name))
}

/// Another checkpoint, whose diffusion model the conditionings that carry the hook are evaluated with.
#[node(
    name = "CreateHookModelAsLoraModelOnly",
    title = "Create Hook Model as LoRA (MO)",
    category = "advanced/hooks/create",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn create_hook_model_as_lora_model_only(
    ctx: &CallContext<'_>,
    #[choice(files = "checkpoints")] ckpt_name: &str,
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_model: f64,
    prev_hooks: Option<Hooks>,
) -> Result<Hooks> {
    appended(prev_hooks, [strength_model, 0.0], || checkpoint(ctx, ckpt_name))
}

/// Gives hooks a schedule.
#[node(
    name = "SetHookKeyframes",
    title = "Set Hook Keyframes",
    category = "advanced/hooks/scheduling",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn set_hook_keyframes(mut hooks: Hooks, hook_kf: Option<HookKeyframes>) -> Hooks {
    if let Some(HookKeyframes(keyframes)) = hook_kf {
        let keyframes = Keyframes::new(keyframes);
        for hook in &mut hooks.0 {
            hook.keyframes = keyframes.clone();
        }
    }
    hooks
}

/// A strength from a time on, 0 the start of sampling and 1 its end.
#[node(
    name = "CreateHookKeyframe",
    title = "Create Hook Keyframe",
    category = "advanced/hooks/scheduling",
    module = "comfy_extras.nodes_hooks",
    outputs("HOOK_KF"),
    experimental
)]
fn create_hook_keyframe(
    #[widget(default = 1.0, min = -20.0, max = 20.0, step = 0.01)] strength_mult: f64,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    prev_hook_kf: Option<HookKeyframes>,
) -> HookKeyframes {
    let mut keyframes = prev_hook_kf.unwrap_or_default();
    keyframes.0.push(Keyframe { start_percent, strength: strength_mult, guaranteed_steps: 1 });
    keyframes
}

/// How strengths go from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Easing {
    #[choice("linear")]
    Linear,
    #[choice("ease_in")]
    In,
    #[choice("ease_out")]
    Out,
    #[choice("ease_in_out")]
    InOut,
}

impl Easing {
    /// 0..1 to 0..1.
    fn at(self, t: f64) -> f64 {
        match self {
            Self::Linear => t,
            Self::In => t * t,
            Self::Out => 1.0 - (1.0 - t) * (1.0 - t),
            Self::InOut => 0.5 * (1.0 - (std::f64::consts::PI * t).cos()),
        }
    }
}

/// Adds keyframes at even distances; the first lasts at least one step.
fn evenly(
    previous: Option<HookKeyframes>,
    strengths: &[f64],
    [start, end]: [f64; 2],
    print: bool,
) -> HookKeyframes {
    let mut keyframes = previous.unwrap_or_default();
    let last = strengths.len().saturating_sub(1).max(1) as f64;
    for (i, &strength) in strengths.iter().enumerate() {
        let start_percent = start + (end - start) * i as f64 / last;
        if print {
            tracing::info!("hook keyframe at {:.2} %: {strength}", start_percent * 100.0);
        }
        keyframes.0.push(Keyframe { start_percent, strength, guaranteed_steps: usize::from(i == 0) });
    }
    keyframes
}

/// Keyframes whose strength goes from one value to another.
#[node(
    name = "CreateHookKeyframesInterpolated",
    title = "Create Hook Keyframes Interp.",
    category = "advanced/hooks/scheduling",
    module = "comfy_extras.nodes_hooks",
    outputs("HOOK_KF"),
    experimental
)]
fn create_hook_keyframes_interpolated(
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.001)] strength_start: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.001)] strength_end: f64,
    interpolation: Easing,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
    #[widget(default = 5, min = 2, max = 100, step = 1)] keyframes_count: usize,
    #[widget(default = false)] print_keyframes: bool,
    prev_hook_kf: Option<HookKeyframes>,
) -> HookKeyframes {
    let last = keyframes_count.saturating_sub(1).max(1) as f64;
    let strength =
        |i: usize| strength_start + (strength_end - strength_start) * interpolation.at(i as f64 / last);
    let strengths: Vec<f64> = (0..keyframes_count).map(strength).collect();
    evenly(prev_hook_kf, &strengths, [start_percent, end_percent], print_keyframes)
}

/// Keyframes with given strengths.
#[node(
    name = "CreateHookKeyframesFromFloats",
    title = "Create Hook Keyframes From Floats",
    category = "advanced/hooks/scheduling",
    module = "comfy_extras.nodes_hooks",
    outputs("HOOK_KF"),
    experimental
)]
fn create_hook_keyframes_from_floats(
    #[widget(default = -1, min = -1, step = 0.001, forceInput = true)] floats_strength: Floats,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
    #[widget(default = false)] print_keyframes: bool,
    prev_hook_kf: Option<HookKeyframes>,
) -> HookKeyframes {
    evenly(prev_hook_kf, &floats_strength.0, [start_percent, end_percent], print_keyframes)
}

fn joined(hooks: impl IntoIterator<Item = Option<Hooks>>) -> Hooks {
    Hooks(hooks.into_iter().flatten().flat_map(|hooks| hooks.0).collect())
}

/// Puts hooks together.
#[node(
    name = "CombineHooks2",
    title = "Combine Hooks [2]",
    category = "advanced/hooks/combine",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn combine_hooks_2(#[name("hooks_A")] a: Option<Hooks>, #[name("hooks_B")] b: Option<Hooks>) -> Hooks {
    joined([a, b])
}

/// Puts hooks together.
#[node(
    name = "CombineHooks4",
    title = "Combine Hooks [4]",
    category = "advanced/hooks/combine",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn combine_hooks_4(
    #[name("hooks_A")] a: Option<Hooks>,
    #[name("hooks_B")] b: Option<Hooks>,
    #[name("hooks_C")] c: Option<Hooks>,
    #[name("hooks_D")] d: Option<Hooks>,
) -> Hooks {
    joined([a, b, c, d])
}

/// Puts hooks together.
#[node(
    name = "CombineHooks8",
    title = "Combine Hooks [8]",
    category = "advanced/hooks/combine",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn combine_hooks_8(
    #[name("hooks_A")] a: Option<Hooks>,
    #[name("hooks_B")] b: Option<Hooks>,
    #[name("hooks_C")] c: Option<Hooks>,
    #[name("hooks_D")] d: Option<Hooks>,
    #[name("hooks_E")] e: Option<Hooks>,
    #[name("hooks_F")] f: Option<Hooks>,
    #[name("hooks_G")] g: Option<Hooks>,
    #[name("hooks_H")] h: Option<Hooks>,
) -> Hooks {
    joined([a, b, c, d, e, f, g, h])
}

/// Puts hooks on text encoders: prompts are encoded with the weights that the hooks make.
#[node(
    name = "SetClipHooks",
    title = "Set CLIP Hooks",
    category = "advanced/hooks/clip",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn set_clip_hooks(
    clip: Clip,
    #[widget(default = true)] apply_to_conds: bool,
    #[widget(default = false)] schedule_clip: bool,
    hooks: Option<Hooks>,
) -> Clip {
    match hooks {
        Some(hooks) => clip.with_hooks(ClipHooks {
            hooks,
            apply_to_conditionings: apply_to_conds,
            scheduled: schedule_clip,
        }),
        None => clip,
    }
}

/// A part of the sampling, and the parts before and behind it.
#[node(
    name = "ConditioningTimestepsRange",
    title = "Timesteps Range",
    category = "advanced/hooks",
    module = "comfy_extras.nodes_hooks",
    outputs("TIMESTEPS_RANGE", "BEFORE_RANGE", "AFTER_RANGE"),
    experimental
)]
fn conditioning_timesteps_range(
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
) -> (TimestepsRange, TimestepsRange, TimestepsRange) {
    let range = |start, end| TimestepsRange { start, end };
    (range(start_percent, end_percent), range(0.0, start_percent), range(end_percent, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_eased_over_even_times() {
        let made = |easing| {
            let keyframes = create_hook_keyframes_interpolated(0.0, 2.0, easing, 0.0, 0.8, 3, false, None);
            keyframes.0.iter().map(|k| (k.start_percent, k.strength, k.guaranteed_steps)).collect::<Vec<_>>()
        };
        assert_eq!(made(Easing::Linear), [(0.0, 0.0, 1), (0.4, 1.0, 0), (0.8, 2.0, 0)]);
        assert_eq!(made(Easing::In)[1].1, 0.5);
        assert_eq!(made(Easing::Out)[1].1, 1.5);
        assert!((made(Easing::InOut)[1].1 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn hooks_are_combined_in_order() {
        let hook = |strength_model| {
            let (source, keyframes) = (Arc::new(()), Keyframes::default());
            Hooks(vec![Hook { source, strength_model, strength_clip: 0.0, keyframes }])
        };
        let combined = combine_hooks_4(Some(hook(1.0)), None, Some(hook(3.0)), None);
        assert_eq!(combined.0.iter().map(|hook| hook.strength_model).collect::<Vec<_>>(), [1.0, 3.0]);
    }
}
