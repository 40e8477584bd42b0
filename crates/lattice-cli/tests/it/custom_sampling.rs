//! Sampling from parts (noise, guider, solver, levels) gives the picture of the one node that holds them all.

use serde_json::{Value as Json, json};

use crate::common::{make, picture};
use crate::families::{checkpoint, slots, text_to_image};

/// The prompt of `KSampler` with the same settings taken apart; `solver` are the inputs and class of the solver's node.
fn taken_apart(whole: &Json, solver: Json) -> Json {
    let mut prompt = whole.clone();
    let settings = whole["k"]["inputs"].clone();
    prompt["noise"] = json!({"class_type": "RandomNoise", "inputs": {"noise_seed": settings["seed"]}});
    prompt["guider"] = json!({"class_type": "CFGGuider", "inputs": {"model": settings["model"],
        "positive": settings["positive"], "negative": settings["negative"], "cfg": settings["cfg"]}});
    prompt["solver"] = solver;
    prompt["levels"] = json!({"class_type": "BasicScheduler", "inputs": {"model": settings["model"],
        "scheduler": settings["scheduler"], "steps": settings["steps"], "denoise": settings["denoise"]}});
    prompt["k"] = json!({"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["noise", 0],
        "guider": ["guider", 0], "sampler": ["solver", 0], "sigmas": ["levels", 0],
        "latent_image": settings["latent_image"]}});
    prompt
}

fn named(sampler: &str) -> Json {
    json!({"class_type": "KSamplerSelect", "inputs": {"sampler_name": sampler}})
}

/// `KSampler` on the tiny Stable Diffusion 1 with a solver and a scheduler.
fn whole(sampler: &str, scheduler: &str) -> Json {
    let mut prompt = text_to_image(checkpoint("sd15"), slots("m"));
    let inputs = &mut prompt["k"]["inputs"];
    inputs["steps"] = json!(3);
    inputs["sampler_name"] = json!(sampler);
    inputs["scheduler"] = json!(scheduler);
    prompt
}

#[test]
fn parts_equal_the_whole() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let mut pictures = Vec::new();
    for (sampler, scheduler, options) in [
        ("euler", "normal", named("euler")),
        ("dpmpp_2m", "karras", named("dpmpp_2m")),
        (
            "euler_ancestral",
            "sgm_uniform",
            json!({"class_type": "SamplerEulerAncestral", "inputs": {"eta": 1.0, "s_noise": 1.0}}),
        ),
        (
            "dpmpp_2m_sde_heun",
            "exponential",
            json!({"class_type": "SamplerDPMPP_2M_SDE", "inputs": {"solver_type": "heun", "eta": 1.0,
                "s_noise": 1.0, "noise_device": "cpu"}}),
        ),
    ] {
        let whole = whole(sampler, scheduler);
        let expected = picture(base.path(), &whole).2;
        assert_eq!(picture(base.path(), &taken_apart(&whole, options)).2, expected, "{sampler}, {scheduler}");
        assert!(!pictures.contains(&expected), "{sampler} and {scheduler} change the picture");
        pictures.push(expected);
    }
}

#[test]
fn a_run_in_two_halves_equals_one() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let whole = whole("euler", "karras");
    let expected = picture(base.path(), &whole).2;

    let mut halves = taken_apart(&whole, named("euler"));
    halves["split"] = json!({"class_type": "SplitSigmas", "inputs": {"sigmas": ["levels", 0], "step": 1}});
    halves["none"] = json!({"class_type": "DisableNoise", "inputs": {}});
    halves["first"] = halves["k"].clone();
    halves["first"]["inputs"]["sigmas"] = json!(["split", 0]);
    halves["k"]["inputs"]["sigmas"] = json!(["split", 1]);
    halves["k"]["inputs"]["noise"] = json!(["none", 0]);
    halves["k"]["inputs"]["latent_image"] = json!(["first", 0]);
    let got = picture(base.path(), &halves).2;
    let off = got.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert_eq!(off, 0, "the scale of the latent in between costs no more than rounding");
}

#[test]
fn the_prediction_is_the_second_result_and_no_levels_change_nothing() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let whole = whole("euler", "simple");

    // The second result is the model's prediction: after the last step of Euler's method, the sample itself.
    let mut prompt = taken_apart(&whole, named("euler"));
    let sampled = picture(base.path(), &prompt).2;
    prompt["d"]["inputs"]["samples"] = json!(["k", 1]);
    assert_eq!(picture(base.path(), &prompt).2, sampled);

    let mut nothing = taken_apart(&whole, named("euler"));
    nothing["levels"]["inputs"]["denoise"] = json!(0.0);
    let untouched = picture(base.path(), &nothing).2;
    nothing["d"]["inputs"]["samples"] = json!(["e", 0]);
    assert_eq!(picture(base.path(), &nothing).2, untouched, "without levels the latent comes back");
}

#[test]
fn noise_levels_of_another_kind_change_the_picture() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let whole = whole("euler", "normal");
    let plain = picture(base.path(), &whole).2;
    let with = |settings: Json| {
        let mut prompt = whole.clone();
        prompt["levels"] = settings;
        prompt["k"]["inputs"]["model"] = json!(["levels", 0]);
        picture(base.path(), &prompt).2
    };
    let discrete = |sampling: &str, zsnr: bool| {
        with(json!({"class_type": "ModelSamplingDiscrete", "inputs": {"model": ["m", 0],
            "sampling": sampling, "zsnr": zsnr}}))
    };
    assert_eq!(discrete("eps", false), plain, "the family's own levels");
    assert_ne!(discrete("v_prediction", false), plain);
    assert_ne!(discrete("eps", true), plain);
    let flow = json!({"class_type": "ModelSamplingSD3", "inputs": {"model": ["m", 0], "shift": 3.0}});
    assert_ne!(with(flow), plain);
}
