//! Guiders, and patches that change a model's guidance.

use std::sync::Arc;

use lattice_diffusion::guidance::{
    self, AdaptiveProjectedGuidance, CfgFunction, CfgNorm, CfgZeroStar, EpsilonScaling, FreSca, GuiderKind,
    LinearCfg, Mahiro, OperationOnGuidance, PostCfg, PreCfg, RenormCfg, RescaleCfg, TangentialDampingCfg,
    TriangleCfg,
};
use lattice_diffusion::latent::Operation;
use lattice_graph::Node;

use crate::node::{Choice, node};
use crate::types::{Conditioning, Guider, Model};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        basic_guider,
        cfg_guider,
        dual_cfg_guider,
        perp_neg_guider,
        rescale_cfg,
        cfg_zero_star,
        cfg_norm,
        tcfg,
        apg,
        mahiro,
        perp_neg,
        fre_sca,
        renorm_cfg,
        epsilon_scaling,
        video_linear_cfg_guidance,
        video_triangle_cfg_guidance,
        differential_diffusion,
        latent_apply_operation_cfg,
    ]
}

fn guider(model: &Model, kind: GuiderKind) -> Guider {
    Guider(guidance::Guider { model: model.guided.clone(), kind })
}

fn with_pre(model: &Model, patch: impl PreCfg + 'static) -> Model {
    model.with_patches(|patches| patches.pre.push(Arc::new(patch)))
}

fn with_cfg(model: &Model, patch: impl CfgFunction + 'static) -> Model {
    model.with_patches(|patches| patches.cfg = Some(Arc::new(patch)))
}

fn with_post(model: &Model, patch: impl PostCfg + 'static) -> Model {
    model.with_patches(|patches| patches.post.push(Arc::new(patch)))
}

/// Follows one prompt without guidance.
#[node(
    name = "BasicGuider",
    title = "BasicGuider",
    category = "sampling/custom_sampling/guiders",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn basic_guider(model: Model, conditioning: Conditioning) -> Guider {
    guider(&model, GuiderKind::Basic { positive: conditioning.0 })
}

/// Classifier-free guidance: away from the negative prompt, towards the positive one.
#[node(
    name = "CFGGuider",
    title = "CFGGuider",
    category = "sampling/custom_sampling/guiders",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn cfg_guider(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg: f64,
) -> Guider {
    guider(&model, GuiderKind::Cfg { positive: positive.0, negative: negative.0, cfg })
}

/// How three conditionings are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum DualStyle {
    #[choice("regular")]
    Regular,
    #[choice("nested")]
    Nested,
}

/// Guidance by two prompts and a negative one, each with a scale.
#[node(
    name = "DualCFGGuider",
    title = "DualCFGGuider",
    category = "sampling/custom_sampling/guiders",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn dual_cfg_guider(
    model: Model,
    cond1: Conditioning,
    cond2: Conditioning,
    negative: Conditioning,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg_conds: f64,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg_cond2_negative: f64,
    style: DualStyle,
) -> Guider {
    let kind = GuiderKind::Dual {
        cond1: cond1.0,
        cond2: cond2.0,
        negative: negative.0,
        cfg_conds,
        cfg_cond2_negative,
        nested: style == DualStyle::Nested,
    };
    guider(&model, kind)
}

/// Guidance that avoids only what of the negative prompt is perpendicular to the positive one.
#[node(
    name = "PerpNegGuider",
    category = "_for_testing",
    module = "comfy_extras.nodes_perpneg",
    v3,
    experimental
)]
fn perp_neg_guider(
    #[widget] model: Model,
    #[widget] positive: Conditioning,
    #[widget] negative: Conditioning,
    #[widget] empty_conditioning: Conditioning,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01)] neg_scale: f64,
) -> Guider {
    let kind = GuiderKind::PerpNeg {
        positive: positive.0,
        negative: negative.0,
        empty: empty_conditioning.0,
        cfg,
        neg_scale,
    };
    guider(&model, kind)
}

/// Keeps the contrast of guided predictions at that of the conditional ones.
#[node(
    name = "RescaleCFG",
    title = "RescaleCFG",
    category = "advanced/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn rescale_cfg(
    model: Model,
    #[widget(default = 0.7, min = 0.0, max = 1.0, step = 0.01)] multiplier: f64,
) -> Model {
    with_cfg(&model, RescaleCfg { multiplier })
}

/// Guidance with an optimal scale of the unconditional prediction (CFG-Zero*).
#[node(
    name = "CFGZeroStar",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_cfg",
    outputs("patched_model"),
    v3
)]
fn cfg_zero_star(#[widget] model: Model) -> Model {
    with_post(&model, CfgZeroStar)
}

/// Keeps the norm of guided predictions at that of the conditional ones.
#[node(
    name = "CFGNorm",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_cfg",
    outputs("patched_model"),
    v3,
    experimental
)]
fn cfg_norm(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01)] strength: f64,
) -> Model {
    with_post(&model, CfgNorm { strength })
}

/// Damps the part of the unconditional prediction that disagrees with the conditional one.
#[node(
    name = "TCFG",
    title = "Tangential Damping CFG",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_tcfg",
    outputs("patched_model"),
    v3
)]
fn tcfg(#[widget] model: Model) -> Model {
    with_pre(&model, TangentialDampingCfg)
}

/// Guidance with its parallel part scaled, its norm limited, and momentum.
#[node(
    name = "APG",
    title = "Adaptive Projected Guidance",
    category = "sampling/custom_sampling",
    module = "comfy_extras.nodes_apg",
    v3
)]
fn apg(
    #[widget] model: Model,
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)] eta: f64,
    #[widget(default = 5.0, min = 0.0, max = 50.0, step = 0.1)] norm_threshold: f64,
    #[widget(default = 0.0, min = -5.0, max = 1.0, step = 0.01)] momentum: f64,
) -> Model {
    with_pre(&model, AdaptiveProjectedGuidance::new(eta, norm_threshold, momentum))
}

/// Leans towards the positive prompt where it disagrees with the negative one.
#[node(
    name = "Mahiro",
    title = "Mahiro",
    category = "_for_testing",
    module = "comfy_extras.nodes_mahiro",
    outputs("patched_model"),
    v3,
    experimental
)]
fn mahiro(#[widget] model: Model) -> Model {
    with_post(&model, Mahiro)
}

/// Makes a model's guidance avoid only what of the negative prompt is perpendicular to the positive one.
#[node(
    name = "PerpNeg",
    title = "Perp-Neg (DEPRECATED by PerpNegGuider)",
    category = "_for_testing",
    module = "comfy_extras.nodes_perpneg",
    v3,
    deprecated,
    experimental
)]
fn perp_neg(
    #[widget] model: Model,
    #[widget] empty_conditioning: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01)] neg_scale: f64,
) -> Model {
    with_cfg(&model, guidance::PerpNeg { empty: empty_conditioning.0, neg_scale })
}

/// Scales the low and the high frequencies of guidance apart.
#[node(
    name = "FreSca",
    title = "FreSca",
    category = "_for_testing",
    module = "comfy_extras.nodes_fresca",
    v3,
    experimental
)]
fn fre_sca(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0, max = 10, step = 0.01)] scale_low: f64,
    #[widget(default = 1.25, min = 0, max = 10, step = 0.01)] scale_high: f64,
    #[widget(default = 20, min = 1, max = 10000, step = 1)] freq_cutoff: usize,
) -> Model {
    with_pre(&model, FreSca { scale_low, scale_high, cutoff: freq_cutoff })
}

/// Limits the norm of guided predictions, and guidance to the later part of sampling.
#[node(name = "RenormCFG", category = "advanced/model", module = "comfy_extras.nodes_lumina2", v3)]
fn renorm_cfg(
    #[widget] model: Model,
    #[widget(default = 100, min = 0.0, max = 100.0, step = 0.01)] cfg_trunc: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01)] renorm_cfg: f64,
) -> Model {
    with_cfg(&model, RenormCfg { cfg_trunc, renorm_cfg })
}

/// Scales predicted noise down against exposure bias.
#[node(name = "Epsilon Scaling", category = "model_patches/unet", module = "comfy_extras.nodes_eps", v3)]
fn epsilon_scaling(
    #[widget] model: Model,
    #[widget(default = 1.005, min = 0.5, max = 1.5, step = 0.001, display = "number")] scaling_factor: f64,
) -> Model {
    with_post(&model, EpsilonScaling { scaling_factor })
}

/// Guidance that grows evenly over the frames.
#[node(
    name = "VideoLinearCFGGuidance",
    title = "VideoLinearCFGGuidance",
    category = "sampling/video_models",
    module = "comfy_extras.nodes_video_model"
)]
fn video_linear_cfg_guidance(
    model: Model,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.5, round = 0.01)] min_cfg: f64,
) -> Model {
    with_cfg(&model, LinearCfg { min_cfg })
}

/// Guidance that grows to the middle frame and falls again.
#[node(
    name = "VideoTriangleCFGGuidance",
    title = "VideoTriangleCFGGuidance",
    category = "sampling/video_models",
    module = "comfy_extras.nodes_video_model"
)]
fn video_triangle_cfg_guidance(
    model: Model,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.5, round = 0.01)] min_cfg: f64,
) -> Model {
    with_cfg(&model, TriangleCfg { min_cfg })
}

/// Reads grey masks as the time from which on a place may change.
#[node(
    name = "DifferentialDiffusion",
    title = "Differential Diffusion",
    category = "_for_testing",
    module = "comfy_extras.nodes_differential_diffusion",
    v3,
    experimental
)]
fn differential_diffusion(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] strength: Option<f64>,
) -> Model {
    model.with_patches(|patches| patches.differential_diffusion = Some(strength.unwrap_or(1.0)))
}

/// Applies an operation on latents to guidance, the difference of the two predictions.
#[node(
    name = "LatentApplyOperationCFG",
    category = "latent/advanced/operations",
    module = "comfy_extras.nodes_latent",
    v3,
    experimental
)]
fn latent_apply_operation_cfg(#[widget] model: Model, #[widget] operation: Operation) -> Model {
    with_pre(&model, OperationOnGuidance { operation })
}
