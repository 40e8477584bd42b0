//! Hooks: weights that change where the conditionings that carry them are evaluated, and when.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::common::{make, picture, write_model};
use crate::families::{checkpoint, slots, text_to_image};

const LORA: &str = "lora_sd15_kohya.safetensors";

fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    make(base.path(), "lora_sd15_kohya", "loras");
    base
}

fn plain() -> Json {
    text_to_image(checkpoint("sd15"), slots("m"))
}

fn pixels(base: &Path, prompt: &Json) -> Vec<u8> {
    picture(base, prompt).2
}

/// The prompt with the text encoders hooked: both prompts are encoded with the hooks of node `h`, and carry them on.
fn hooked(hook: Json, scheduled: bool) -> Json {
    let mut prompt = plain();
    prompt["h"] = hook;
    prompt["c"] = json!({"class_type": "SetClipHooks", "inputs": {"clip": ["m", 1], "hooks": ["h", 0],
        "apply_to_conds": true, "schedule_clip": scheduled}});
    for text in ["p", "n"] {
        prompt[text]["inputs"]["clip"] = json!(["c", 0]);
    }
    prompt
}

fn lora_hook(model: f64, clip: f64) -> Json {
    json!({"class_type": "CreateHookLora", "inputs": {
        "lora_name": LORA, "strength_model": model, "strength_clip": clip}})
}

#[test]
fn a_hook_everywhere_is_an_adapter() {
    let base = base();
    let mut loaded = text_to_image(checkpoint("sd15"), [json!(["l", 0]), json!(["l", 1]), json!(["m", 2])]);
    loaded["l"] = json!({"class_type": "LoraLoader", "inputs": {"model": ["m", 0], "clip": ["m", 1],
        "lora_name": LORA, "strength_model": 0.8, "strength_clip": 0.6}});
    let expected = pixels(base.path(), &loaded);
    assert!(expected != pixels(base.path(), &plain()));
    assert!(pixels(base.path(), &hooked(lora_hook(0.8, 0.6), false)) == expected);
}

#[test]
fn another_checkpoint_as_a_hook_is_that_checkpoint() {
    let base = base();
    write_model(base.path(), "tiny/sd15", "other", "checkpoints", 1);
    let mut other = text_to_image(checkpoint("sd15"), [json!(["o", 0]), json!(["o", 1]), json!(["m", 2])]);
    other["o"] = checkpoint("other")["m"].clone();
    let hook = |strength: f64| {
        json!({"class_type": "CreateHookModelAsLora", "inputs": {
            "ckpt_name": "other.safetensors", "strength_model": strength, "strength_clip": strength}})
    };
    let whole = pixels(base.path(), &hooked(hook(1.0), false));
    assert!(whole == pixels(base.path(), &other));
    let half = pixels(base.path(), &hooked(hook(0.5), false));
    assert!(half != whole && half != pixels(base.path(), &plain()));
}

#[test]
fn keyframes_turn_hooks_on_and_off() {
    let base = base();
    // A hook with keyframes of (start, strength).
    let keyframed = |keyframes: &[(f64, f64)], scheduled: bool| {
        let mut prompt = hooked(Json::Null, scheduled);
        prompt["l"] = lora_hook(0.8, 0.6);
        let mut previous = Json::Null;
        for (i, (start, strength)) in keyframes.iter().enumerate() {
            let name = format!("f{i}");
            prompt[&name] = json!({"class_type": "CreateHookKeyframe", "inputs": {
                "start_percent": start, "strength_mult": strength}});
            if !previous.is_null() {
                prompt[&name]["inputs"]["prev_hook_kf"] = previous;
            }
            previous = json!([name, 0]);
        }
        prompt["h"] =
            json!({"class_type": "SetHookKeyframes", "inputs": {"hooks": ["l", 0], "hook_kf": previous}});
        pixels(base.path(), &prompt)
    };
    let (off, on) = (pixels(base.path(), &plain()), pixels(base.path(), &hooked(lora_hook(0.8, 0.6), false)));
    assert!(keyframed(&[(0.0, 0.0)], false) == off);
    assert!(keyframed(&[(0.0, 1.0)], false) == on);
    let late = keyframed(&[(0.0, 1.0), (1.0, 0.0)], true);
    assert!(late == on, "the end of sampling is behind the last step");
    let first_step = keyframed(&[(0.0, 1.0), (0.3, 0.0)], false);
    let first_step_texts = keyframed(&[(0.0, 1.0), (0.3, 0.0)], true);
    let all = [&off, &on, &first_step, &first_step_texts];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
    }
}

#[test]
fn hooks_change_only_the_prompts_that_carry_them() {
    let base = base();
    let mut prompt = plain();
    prompt["h"] = json!({"class_type": "CreateHookLoraModelOnly", "inputs": {
        "lora_name": LORA, "strength_model": 0.8}});
    prompt["r"] = json!({"class_type": "ConditioningTimestepsRange", "inputs": {
        "start_percent": 0.0, "end_percent": 1.0}});
    prompt["c"] = json!({"class_type": "PairConditioningSetProperties", "inputs": {
        "positive_NEW": ["p", 0], "negative_NEW": ["n", 0], "strength": 1.0, "set_cond_area": "default",
        "hooks": ["h", 0], "timesteps": ["r", 0]}});
    let mut with = |positive: Json, negative: Json| {
        prompt["k"]["inputs"]["positive"] = positive;
        prompt["k"]["inputs"]["negative"] = negative;
        pixels(base.path(), &prompt)
    };
    let neither = with(json!(["p", 0]), json!(["n", 0]));
    let positive = with(json!(["c", 0]), json!(["n", 0]));
    let negative = with(json!(["p", 0]), json!(["c", 1]));
    let both = with(json!(["c", 0]), json!(["c", 1]));
    assert!(neither == pixels(base.path(), &plain()));
    let all = [&neither, &positive, &negative, &both];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
    }
    let mut loaded = plain();
    loaded["l"] = json!({"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["m", 0],
        "lora_name": LORA, "strength_model": 0.8}});
    loaded["k"]["inputs"]["model"] = json!(["l", 0]);
    assert!(both == pixels(base.path(), &loaded));
}
