//! Conditionings and guidance on the analytic denoiser.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use lattice_diffusion::Denoiser;
use lattice_diffusion::conditioning::{Area, Conditioning, Entry, edit};
use lattice_diffusion::guidance::{
    AdaptiveProjectedGuidance, CfgNorm, CfgZeroStar, EpsilonScaling, FreSca, Guider, GuiderKind, LinearCfg,
    Mahiro, Model, Patches, PerpNeg, RenormCfg, RescaleCfg, TangentialDampingCfg, TriangleCfg,
};
use lattice_diffusion::model::Run;
use serde_json::Value as Json;

use super::Operation;
use crate::analytic::Analytic;
use crate::{Case, Check, Outcome};

/// Operations of topic `cfg`.
pub(super) const OPERATIONS: &[Operation] = &[
    ("cfg", "guidance", guidance),
    ("cfg", "conditioning", conditioning),
    ("cfg", "ConditioningAverage", average),
    ("cfg", "ConditioningConcat", concat),
    ("cfg", "ConditioningZeroOut", zero_out),
];

/// A prompt that is one number.
fn value(a: f64) -> Result<Conditioning> {
    Ok(vec![Entry::new(Tensor::full(a as f32, (1, 1, 1), &Device::Cpu)?)])
}

fn number(json: &Json, name: &str) -> Result<f64> {
    json[name].as_f64().with_context(|| format!("no number {name} in {json}"))
}

fn count(json: &Json, name: &str) -> Result<usize> {
    Ok(number(json, name)? as usize)
}

/// Runs a guider on the case's x for each sigma and compares the results one behind the other.
fn run(case: &Case<'_>, patches: Patches, kind: GuiderKind) -> Result<Outcome> {
    let x = case.tensor("x")?;
    let shape = case.usizes("shape")?;
    let base = Analytic::new(&case.set.index["denoiser"], case.str("model")?, shape[1])?;
    let guider = Guider { model: Model { base: Arc::new(base), patches }, kind };
    let mut denoiser = guider.start(Run::new(&shape, x.device()))?;
    let sigmas = case.field("sigmas")?.as_array().context("sigmas are no list")?;
    let mut results = Vec::new();
    for (i, sigma) in sigmas.iter().enumerate() {
        // Stacked on the first axis: one x per sigma.
        let x = if x.rank() > shape.len() { x.get(i)? } else { x.clone() };
        results.push(denoiser.denoise(&x, sigma.as_f64().context("sigma")?, false)?.denoised);
    }
    let want = case.tensor("out")?;
    let got = Tensor::cat(&results, 0)?.reshape(want.shape())?;
    let tolerance = |name: &str| case.tolerance()[name].as_f64().unwrap_or(0.0);
    Ok(Outcome::Ran(vec![Check::close("out", &got, &want, tolerance("abs"), tolerance("rel"))?]))
}

/// Adds the patches of a node to a model.
fn add_patch(patches: &mut Patches, node: &str, options: &Json) -> Result<()> {
    match node {
        "none" | "PerpNegGuider" | "DualCFGGuider" | "BasicGuider" | "CFGGuider" => {}
        "RescaleCFG" => {
            patches.cfg = Some(Arc::new(RescaleCfg { multiplier: number(options, "multiplier")? }));
        }
        "CFGZeroStar" => patches.post.push(Arc::new(CfgZeroStar)),
        "CFGNorm" => patches.post.push(Arc::new(CfgNorm { strength: number(options, "strength")? })),
        "TCFG" => patches.pre.push(Arc::new(TangentialDampingCfg)),
        "APG" => {
            let list = options["apg"].as_array();
            let option = |i: usize, name: &str| match list {
                Some(list) => list.get(i).and_then(Json::as_f64).with_context(|| name.to_owned()),
                None => number(options, name),
            };
            let (eta, threshold) = (option(0, "eta")?, option(1, "norm_threshold")?);
            let apg = AdaptiveProjectedGuidance::new(eta, threshold, option(2, "momentum")?);
            patches.pre.push(Arc::new(apg));
        }
        "Mahiro" => patches.post.push(Arc::new(Mahiro)),
        "Epsilon Scaling" => {
            patches
                .post
                .push(Arc::new(EpsilonScaling { scaling_factor: number(options, "scaling_factor")? }));
        }
        "RenormCFG" => {
            let (cfg_trunc, renorm_cfg) = (number(options, "cfg_trunc")?, number(options, "renorm_cfg")?);
            patches.cfg = Some(Arc::new(RenormCfg { cfg_trunc, renorm_cfg }));
        }
        "FreSca" => patches.pre.push(Arc::new(FreSca {
            scale_low: number(options, "scale_low")?,
            scale_high: number(options, "scale_high")?,
            cutoff: count(options, "freq_cutoff")?,
        })),
        "VideoLinearCFGGuidance" => {
            patches.cfg = Some(Arc::new(LinearCfg { min_cfg: number(options, "min_cfg")? }));
        }
        "VideoTriangleCFGGuidance" => {
            patches.cfg = Some(Arc::new(TriangleCfg { min_cfg: number(options, "min_cfg")? }));
        }
        "PerpNeg" => {
            let (empty, neg_scale) = (value(number(options, "empty")?)?, number(options, "neg_scale")?);
            patches.cfg = Some(Arc::new(PerpNeg { empty, neg_scale }));
        }
        other => bail!("unknown node {other}"),
    }
    Ok(())
}

fn guidance(case: &Case<'_>) -> Result<Outcome> {
    let (node, options) = (case.str("node")?, &case.json["options"]);
    let mut patches = Patches::default();
    for node in node.trim_start_matches("chain:").split('+') {
        add_patch(&mut patches, node, options)?;
    }
    let inputs = &case.json["guider_inputs"];
    let input = |name: &str| value(number(inputs, name)?);
    let kind = match node {
        "BasicGuider" => GuiderKind::Basic { positive: value(case.f64("positive")?)? },
        "PerpNegGuider" => GuiderKind::PerpNeg {
            positive: input("positive")?,
            negative: input("negative")?,
            empty: input("empty_conditioning")?,
            cfg: number(inputs, "cfg")?,
            neg_scale: number(inputs, "neg_scale")?,
        },
        "DualCFGGuider" => GuiderKind::Dual {
            cond1: input("cond1")?,
            cond2: input("cond2")?,
            negative: input("negative")?,
            cfg_conds: number(inputs, "cfg_conds")?,
            cfg_cond2_negative: number(inputs, "cfg_cond2_negative")?,
            nested: inputs["style"] == "nested",
        },
        _ => GuiderKind::Cfg {
            positive: value(case.f64("positive")?)?,
            negative: value(case.f64("negative")?)?,
            cfg: case.f64("cfg")?,
        },
    };
    run(case, patches, kind)
}

/// A list of entries, each a value and the nodes it went through.
fn entries(case: &Case<'_>, name: &str) -> Result<Conditioning> {
    let mut list = Conditioning::new();
    for entry in case.field(name)?.as_array().context("no list of entries")? {
        let mut conditioning = value(number(entry, "value")?)?;
        for op in entry["ops"].as_array().into_iter().flatten() {
            conditioning = apply(case, conditioning, op)?;
        }
        list.extend(conditioning);
    }
    Ok(list)
}

fn apply(case: &Case<'_>, conditioning: Conditioning, op: &Json) -> Result<Conditioning> {
    let inputs = &op["inputs"];
    let strength = inputs["strength"].as_f64().unwrap_or(1.0);
    let set = |change: &dyn Fn(&mut lattice_diffusion::conditioning::Options)| {
        edit::with_options(&conditioning, change)
    };
    Ok(match op["node"].as_str().context("no node")? {
        "ConditioningSetArea" => {
            let pixels = |name: &str| count(inputs, name);
            let area = Area::from_pixels(pixels("height")?, pixels("width")?, pixels("y")?, pixels("x")?);
            set(&|o| o.set_area(area.clone(), strength))
        }
        "ConditioningSetAreaPercentage" => {
            let share = |name: &str| number(inputs, name);
            let size = vec![share("height")?, share("width")?];
            let area = Area::Fraction { size, offset: vec![share("y")?, share("x")?] };
            set(&|o| o.set_area(area.clone(), strength))
        }
        "ConditioningSetAreaStrength" => set(&|o| o.strength = strength),
        "ConditioningSetMask" => {
            let mask = case.tensor(inputs["mask"].as_str().context("no mask")?)?;
            let bounds = inputs["set_cond_area"] != "default";
            set(&|o| o.set_mask(mask.clone(), strength, bounds))
        }
        "ConditioningSetTimestepRange" => {
            let (start, end) = (number(inputs, "start")?, number(inputs, "end")?);
            set(&|o| (o.start_percent, o.end_percent) = (Some(start), Some(end)))
        }
        "ConditioningSetDefaultCombine_default" => set(&|o| o.default = true),
        other => bail!("unknown node {other}"),
    })
}

fn conditioning(case: &Case<'_>) -> Result<Outcome> {
    let (positive, negative) = (entries(case, "positive")?, entries(case, "negative")?);
    run(case, Patches::default(), GuiderKind::Cfg { positive, negative, cfg: case.f64("cfg")? })
}

/// The list of a tensor with its pooled vector, if the case has one.
fn list(case: &Case<'_>, role: &str) -> Result<Conditioning> {
    let mut entry = Entry::new(case.tensor(role)?);
    let pooled = format!("{role}_pooled");
    if case.has_tensor(&pooled) {
        entry.options.pooled = Some(case.tensor(&pooled)?);
    }
    Ok(vec![entry])
}

fn compare(case: &Case<'_>, got: &Conditioning) -> Result<Outcome> {
    let entry = got.first().context("an empty result")?;
    let abs = case.tolerance()["abs"].as_f64().unwrap_or(0.0);
    let mut checks = vec![Check::close("out", &entry.tensor, &case.tensor("out")?, abs, 0.0)?];
    if case.has_tensor("out_pooled") {
        let pooled = entry.options.pooled.as_ref().context("no pooled output")?;
        checks.push(Check::close("pooled", pooled, &case.tensor("out_pooled")?, abs, 0.0)?);
    }
    Ok(Outcome::Ran(checks))
}

fn average(case: &Case<'_>) -> Result<Outcome> {
    let k = case.f64("conditioning_to_strength")?;
    compare(case, &edit::average(&list(case, "to")?, &list(case, "from")?, k)?)
}

fn concat(case: &Case<'_>) -> Result<Outcome> {
    compare(case, &edit::concat(&list(case, "to")?, &list(case, "from")?)?)
}

fn zero_out(case: &Case<'_>) -> Result<Outcome> {
    let role = ["conditioning", "in", "to"].into_iter().find(|r| case.has_tensor(r)).context("no input")?;
    compare(case, &edit::zero_out(&list(case, role)?)?)
}
