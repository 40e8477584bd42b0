//! Layouts and templates of the supported text encoders.

use std::borrow::Cow;

use super::{ChunkLayout, PromptEncoding};

/// Text around the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Before it.
    pub before: &'static str,
    /// Behind it.
    pub after: &'static str,
    /// A prompt that starts with this brings its own frame.
    pub unless_starts_with: Option<&'static str>,
}

impl Template {
    /// The framed prompt.
    pub fn apply<'a>(&self, prompt: &'a str) -> Cow<'a, str> {
        match self.unless_starts_with {
            Some(start) if prompt.starts_with(start) => Cow::Borrowed(prompt),
            _ => Cow::Owned(format!("{}{prompt}{}", self.before, self.after)),
        }
    }
}

/// Layouts by encoder.
pub mod layouts {
    use super::ChunkLayout;

    const CLIP: ChunkLayout = ChunkLayout {
        start: Some(49406),
        end: Some(49407),
        pad: 0,
        max_length: Some(77),
        pad_to_max: true,
        min_length: 0,
    };
    const T5: ChunkLayout =
        ChunkLayout { start: None, end: Some(1), pad: 0, max_length: None, pad_to_max: false, min_length: 1 };

    /// CLIP ViT-L of SD1, SDXL, SD3 and Flux: padded with the end token.
    pub const CLIP_L: ChunkLayout = ChunkLayout { pad: 49407, ..CLIP };
    /// `OpenCLIP` ViT-bigG of SDXL and SD3.
    pub const CLIP_G: ChunkLayout = CLIP;
    /// `OpenCLIP` ViT-H of SD2.
    pub const CLIP_H: ChunkLayout = CLIP;
    /// T5-XXL of SD3.
    pub const T5_SD3: ChunkLayout = ChunkLayout { min_length: 77, ..T5 };
    /// T5-XXL of Flux and Mochi.
    pub const T5_FLUX: ChunkLayout = ChunkLayout { min_length: 256, ..T5 };
    /// T5-XXL of LTX-Video.
    pub const T5_LTXV: ChunkLayout = ChunkLayout { min_length: 128, ..T5 };
    /// T5 of Cosmos.
    pub const T5_COSMOS: ChunkLayout = ChunkLayout { min_length: 512, ..T5 };
    /// T5-XXL of PixArt, and ByT5: no padding.
    pub const T5_UNPADDED: ChunkLayout = T5;
    /// Pile-T5 of AuraFlow.
    pub const PILE_T5: ChunkLayout = ChunkLayout { end: Some(2), pad: 1, min_length: 256, ..T5 };
    /// UMT5-XXL of Wan.
    pub const UMT5: ChunkLayout = ChunkLayout { min_length: 512, ..T5 };
    /// The BERT-like CLIP of HunyuanDiT.
    pub const HUNYUAN_DIT_BERT: ChunkLayout = ChunkLayout {
        start: Some(101),
        end: Some(102),
        pad: 0,
        max_length: Some(512),
        pad_to_max: false,
        min_length: 77,
    };
    /// Llama 3 of HunyuanVideo.
    pub const LLAMA3_HUNYUAN_VIDEO: ChunkLayout =
        ChunkLayout { start: Some(128_000), end: None, pad: 128_258, min_length: 1, ..T5 };
    /// Llama 3 of HiDream.
    pub const LLAMA3_HIDREAM: ChunkLayout =
        ChunkLayout { pad: 128_009, min_length: 256, ..LLAMA3_HUNYUAN_VIDEO };
    /// Qwen 2.5 of Qwen-Image.
    pub const QWEN25: ChunkLayout = ChunkLayout { end: None, pad: 151_643, ..T5 };
}

/// Templates by model family.
pub mod templates {
    use super::Template;

    /// Qwen-Image (its technical report, 2025).
    pub const QWEN_IMAGE: Template = Template {
        before: "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, \
                 text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
        after: "<|im_end|>\n<|im_start|>assistant\n",
        unless_starts_with: Some("<|im_start|>"),
    };

    /// HunyuanVideo (as in diffusers' pipeline).
    pub const HUNYUAN_VIDEO: Template = Template {
        before: "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following \
                 aspects: 1. The main content and theme of the video.2. The color, shape, size, texture, quantity, \
                 text, and spatial relationships of the objects.3. Actions, events, behaviors temporal \
                 relationships, physical movement changes of the objects.4. background environment, light, style \
                 and atmosphere.5. camera angles, movements, and transitions used in the video:<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\n",
        after: "<|eot_id|>",
        unless_starts_with: None,
    };
}

impl PromptEncoding {
    /// A weighted encoding without a template.
    pub fn weighted(
        tokenizer: std::sync::Arc<dyn lattice_models::tokenizers::Tokenizer>,
        layout: ChunkLayout,
    ) -> Self {
        Self { tokenizer, layout, template: None, weighted: true }
    }

    /// The encoding of Qwen-Image: a template, no weights.
    pub fn qwen_image(tokenizer: std::sync::Arc<dyn lattice_models::tokenizers::Tokenizer>) -> Self {
        Self { tokenizer, layout: layouts::QWEN25, template: Some(templates::QWEN_IMAGE), weighted: false }
    }
}
