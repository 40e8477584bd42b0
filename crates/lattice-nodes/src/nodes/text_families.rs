//! Prompts with what particular model families read beside them.

use std::sync::Arc;

use lattice_diffusion::conditioning::{Guidance, SizeOptions};
use lattice_graph::Node;
use lattice_models::detect::TextEncoderKind;

use super::MAX_RESOLUTION;
use super::text::{encoded, encoded_text};
use crate::Result;
use crate::node::{Choice, node};
use crate::types::{Clip, Conditioning};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        clip_text_encode_sdxl,
        clip_text_encode_sdxl_refiner,
        clip_text_encode_sd3,
        clip_text_encode_flux,
        clip_text_encode_pixart_alpha,
        clip_text_encode_lumina2,
        t5_tokenizer_options,
    ]
}

fn with_sizes(mut conditioning: Conditioning, sizes: SizeOptions) -> Conditioning {
    for entry in &mut conditioning.0 {
        entry.options.sizes = sizes;
    }
    conditioning
}

/// A prompt for each of SDXL's two text encoders, with the sizes that it was trained to know. The shorter prompt is
/// filled up with empty ones.
#[node(
    name = "CLIPTextEncodeSDXL",
    category = "advanced/conditioning",
    module = "comfy_extras.nodes_clip_sdxl",
    v3
)]
fn clip_text_encode_sdxl(
    #[widget] clip: Clip,
    /// Width of the picture that the training set would have had.
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)]
    width: u32,
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] height: u32,
    /// How much of its left was cut off.
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION)]
    crop_w: u32,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION)] crop_h: u32,
    /// Width to generate.
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)]
    target_width: u32,
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] target_height: u32,
    #[widget(multiline = true, dynamicPrompts = true)] text_g: &str,
    #[widget(multiline = true, dynamicPrompts = true)] text_l: &str,
) -> Result<Conditioning> {
    let mut chunks =
        clip.tokenize(|encoder| if encoder == TextEncoderKind::ClipG { text_g } else { text_l })?;
    clip.equalize(&mut chunks)?;
    let sizes = SizeOptions {
        width: Some(width.into()),
        height: Some(height.into()),
        crop_w: Some(crop_w.into()),
        crop_h: Some(crop_h.into()),
        target_width: Some(target_width.into()),
        target_height: Some(target_height.into()),
        aesthetic_score: None,
    };
    Ok(with_sizes(encoded(&clip, &chunks)?, sizes))
}

/// A prompt for SDXL's refiner, with size and aesthetic score.
#[node(
    name = "CLIPTextEncodeSDXLRefiner",
    category = "advanced/conditioning",
    module = "comfy_extras.nodes_clip_sdxl",
    v3
)]
fn clip_text_encode_sdxl_refiner(
    /// How beautiful the picture is to be, about 2 to 7.
    #[widget(default = 6.0, min = 0.0, max = 1000.0, step = 0.01)]
    ascore: f64,
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] width: u32,
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] height: u32,
    #[widget(multiline = true, dynamicPrompts = true)] text: &str,
    #[widget] clip: Clip,
) -> Result<Conditioning> {
    let sizes = SizeOptions {
        width: Some(width.into()),
        height: Some(height.into()),
        aesthetic_score: Some(ascore),
        ..SizeOptions::default()
    };
    Ok(with_sizes(encoded_text(&clip, text)?, sizes))
}

/// A prompt for each of Stable Diffusion 3's text encoders.
#[node(name = "CLIPTextEncodeSD3", category = "advanced/conditioning", module = "comfy_extras.nodes_sd3", v3)]
fn clip_text_encode_sd3(
    #[widget] clip: Clip,
    #[widget(multiline = true, dynamicPrompts = true)] clip_l: &str,
    #[widget(multiline = true, dynamicPrompts = true)] clip_g: &str,
    #[widget(multiline = true, dynamicPrompts = true)] t5xxl: &str,
    /// Whether the model sees an empty prompt, or nothing, of an encoder without a text.
    #[combo("none", "empty_prompt")]
    empty_padding: &str,
) -> Result<Conditioning> {
    let text = |encoder| match encoder {
        TextEncoderKind::ClipL => clip_l,
        TextEncoderKind::ClipG => clip_g,
        _ => t5xxl,
    };
    let mut chunks = clip.tokenize(text)?;
    if empty_padding == "none" {
        let unread = |kind: TextEncoderKind| text(kind).is_empty();
        for (chunks, encoder) in chunks.iter_mut().zip(clip.encoders()) {
            if unread(encoder.part.kind) {
                chunks.clear();
            }
        }
    }
    clip.equalize(&mut chunks)?;
    encoded(&clip, &chunks)
}

/// A prompt for each of Flux's text encoders, and the distilled guidance scale.
#[node(
    name = "CLIPTextEncodeFlux",
    category = "advanced/conditioning/flux",
    module = "comfy_extras.nodes_flux",
    v3
)]
fn clip_text_encode_flux(
    #[widget] clip: Clip,
    #[widget(multiline = true, dynamicPrompts = true)] clip_l: &str,
    #[widget(multiline = true, dynamicPrompts = true)] t5xxl: &str,
    #[widget(default = 3.5, min = 0.0, max = 100.0, step = 0.1)] guidance: f64,
) -> Result<Conditioning> {
    let chunks = clip.tokenize(|encoder| if encoder == TextEncoderKind::T5Xxl { t5xxl } else { clip_l })?;
    let mut conditioning = encoded(&clip, &chunks)?;
    for entry in &mut conditioning.0 {
        entry.options.guidance = Guidance::Scale(guidance);
    }
    Ok(conditioning)
}

/// A prompt with the size of the picture.
#[node(
    name = "CLIPTextEncodePixArtAlpha",
    category = "advanced/conditioning",
    module = "comfy_extras.nodes_pixart",
    v3
)]
fn clip_text_encode_pixart_alpha(
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] width: u32,
    #[widget(default = 1024, min = 0, max = MAX_RESOLUTION)] height: u32,
    #[widget(multiline = true, dynamicPrompts = true)] text: &str,
    #[widget] clip: Clip,
) -> Result<Conditioning> {
    let sizes =
        SizeOptions { width: Some(width.into()), height: Some(height.into()), ..SizeOptions::default() };
    Ok(with_sizes(encoded_text(&clip, text)?, sizes))
}

/// How far prompts for encoders of the T5 kind are padded.
#[node(
    name = "T5TokenizerOptions",
    category = "_for_testing/conditioning",
    module = "comfy_extras.nodes_cond",
    v3,
    experimental
)]
fn t5_tokenizer_options(
    #[widget] clip: Clip,
    /// Padding tokens behind the text in any case.
    #[widget(default = 0, min = 0, max = 10000, step = 1)]
    min_padding: usize,
    /// Length up to which it is padded.
    #[widget(default = 0, min = 0, max = 10000, step = 1)]
    min_length: usize,
) -> Clip {
    clip.with_t5_padding(min_padding, min_length)
}

/// What Lumina-Image 2.0 is told before a prompt.
#[derive(Clone, Copy, Choice)]
enum LuminaSystem {
    #[choice("superior")]
    Superior,
    #[choice("alignment")]
    Alignment,
}

impl LuminaSystem {
    /// The texts that it was published with.
    fn text(self) -> &'static str {
        match self {
            Self::Superior => {
                "You are an assistant designed to generate superior images with the superior degree of image-text alignment based \
                 on textual prompts or user prompts."
            }
            Self::Alignment => {
                "You are an assistant designed to generate high-quality images with the highest degree of image-text alignment \
                 based on textual prompts."
            }
        }
    }
}

/// A prompt for Lumina-Image 2.0: one of the texts that tell it what it is, then the prompt.
#[node(
    name = "CLIPTextEncodeLumina2",
    title = "CLIP Text Encode for Lumina2",
    category = "conditioning",
    module = "comfy_extras.nodes_lumina2",
    v3
)]
fn clip_text_encode_lumina2(
    #[combo("superior", "alignment")] system_prompt: LuminaSystem,
    #[widget(multiline = true, dynamicPrompts = true)] user_prompt: &str,
    #[widget] clip: Clip,
) -> Result<Conditioning> {
    encoded_text(&clip, &format!("{} <Prompt Start> {user_prompt}", system_prompt.text()))
}
