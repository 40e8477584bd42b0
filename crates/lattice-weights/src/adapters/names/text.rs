//! Names of text encoders.

/// Prefixes of an encoder's modules, in the common form.
pub(super) fn prefixes(kind: &str, all: &[&str]) -> Vec<String> {
    let numbers: &[&str] = match kind {
        // T5's paths are like no CLIP's, so any number means it.
        "t5xxl" | "umt5xxl" => &["", "1", "2", "3"],
        // Beside a CLIP-L the bigger tower is the second; alone it is the only one.
        "clip_g" if all.contains(&"clip_l") => &["2"],
        "clip_g" => &["", "1", "2"],
        _ => &["", "1"],
    };
    let mut out = vec![format!("text_encoders_{kind}_transformer_"), format!("text_encoders_{kind}_")];
    for number in numbers {
        out.push(format!("lora_te{number}_"));
        let separate = if number.is_empty() { String::new() } else { format!("_{number}") };
        out.push(format!("text_encoder{separate}_"));
        out.push(format!("base_model_model_text_encoder{separate}_"));
        out.push(format!("lycoris_text_encoder{separate}_"));
    }
    if kind == "clip_g" {
        out.push("lora_prior_te_".into());
    }
    out.push(format!("{kind}_transformer_"));
    out.push(format!("{kind}_"));
    if kind == "t5xxl" {
        out.push("t5_".into());
    }
    if all.len() == 1 || kind.ends_with("t5xxl") {
        out.extend(["lycoris_", "base_model_model_", ""].map(String::from));
    }
    out
}
