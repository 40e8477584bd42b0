//! Text encoders with the way each wants its prompts.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lattice_diffusion::prompt::{
    Chunk, ChunkLayout, EmbeddingSource, EncoderOutput, Padding, PromptEncoding, encode_weighted, layouts,
};
use lattice_models::detect::{Family, TextEncoderKind, TextPart};
use lattice_models::tokenizers::Vocabulary;
use lattice_models::{TextEncoder, TextInput, TextOptions};
use lattice_weights::StateDict;
use lattice_weights::patcher::{PatchSet, PatchedWeights};

use super::hooks::hooked_encoders;
use super::{Hooks, placed};
use crate::node::GraphType;
use crate::services::Embeddings;
use crate::{Error, Result};

/// Width of CLIP-L's states, which keep their place where that encoder is missing.
const CLIP_L_WIDTH: usize = 768;
/// Tokens of one of CLIP's windows.
const CLIP_TOKENS: usize = 77;
/// Width of CLIP-G's pooled text.
const CLIP_G_WIDTH: usize = 1280;
/// Width of T5-XXL's states, to which SD3 pads those of CLIP.
const T5_WIDTH: usize = 4096;

/// How the encoders of a model family work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipFamily {
    /// CLIP-L alone, or CLIP-H (SD2): normed states.
    Sd,
    /// CLIP-L and CLIP-G, or CLIP-G alone (refiner): states as they are, side by side.
    Sdxl,
    /// Any of CLIP-L, CLIP-G and T5-XXL.
    Sd3,
    /// T5-XXL for the states, CLIP-L for the pooled text.
    Flux,
    /// T5-XXL with its mask, 256 tokens.
    Mochi,
    /// T5-XXL with its mask, 128 tokens.
    Ltxv,
    /// UMT5-XXL, padding zeroed.
    Wan,
}

impl ClipFamily {
    /// That of a checkpoint.
    ///
    /// # Errors
    /// If the family's text encoders are not known.
    pub fn of_model(family: Family) -> Result<Self> {
        Ok(match family {
            Family::Sd1 | Family::Sd2 => Self::Sd,
            Family::Sdxl | Family::SdxlRefiner => Self::Sdxl,
            Family::Sd3 => Self::Sd3,
            Family::Flux | Family::FluxSchnell => Self::Flux,
            Family::Mochi => Self::Mochi,
            Family::LtxVideo => Self::Ltxv,
            Family::Wan21 => Self::Wan,
            other => return Err(Error::value(format!("text encoders of {} are not known", other.name()))),
        })
    }

    /// That of a loader's `type` and the kinds of encoder found. Encoders of the CLIP kind tell their family unless the type
    /// is one that puts them to another use.
    ///
    /// # Errors
    /// If encoders of those kinds serve no model of that type.
    pub fn of_loader(kind: &str, found: &[TextEncoderKind]) -> Result<Self> {
        use TextEncoderKind::{ClipG, ClipH, ClipL, T5Xxl, Umt5Xxl};
        let has = |kind| found.contains(&kind);
        Ok(match kind {
            "sd3" => Self::Sd3,
            "flux" => Self::Flux,
            // Its network is not there, and no other reads these encoders the way it does.
            "hidream" if found.len() == 4 => return Err(no_family(found, "hidream")),
            "mochi" if has(T5Xxl) => Self::Mochi,
            "ltxv" if has(T5Xxl) => Self::Ltxv,
            _ => match found {
                [Umt5Xxl] => Self::Wan,
                [ClipL | ClipH] => Self::Sd,
                [ClipG] | [ClipL, ClipG] => Self::Sdxl,
                [T5Xxl] => Self::Sd3,
                _ => return Err(no_family(found, kind)),
            },
        })
    }

    fn layout(self, kind: TextEncoderKind) -> ChunkLayout {
        match (kind, self) {
            (TextEncoderKind::ClipL, _) => layouts::CLIP_L,
            (TextEncoderKind::ClipG, _) => layouts::CLIP_G,
            (TextEncoderKind::Umt5Xxl, _) => layouts::UMT5,
            (TextEncoderKind::T5Xxl, Self::Flux | Self::Mochi) => layouts::T5_FLUX,
            (TextEncoderKind::T5Xxl, Self::Ltxv) => layouts::T5_LTXV,
            (TextEncoderKind::T5Xxl, _) => layouts::T5_SD3,
            _ => layouts::CLIP_H,
        }
    }

    /// Whether padding is hidden from the encoder.
    fn masks(self) -> bool {
        matches!(self, Self::Mochi | Self::Ltxv | Self::Wan)
    }

    /// Kinds of encoder it reads.
    fn reads(self, kind: TextEncoderKind) -> bool {
        use TextEncoderKind::{ClipG, ClipH, ClipL, T5Xxl, Umt5Xxl};
        match self {
            Self::Sd => matches!(kind, ClipL | ClipH),
            Self::Sdxl => matches!(kind, ClipL | ClipG),
            Self::Sd3 => matches!(kind, ClipL | ClipG | T5Xxl),
            Self::Flux => matches!(kind, ClipL | T5Xxl),
            Self::Mochi | Self::Ltxv => kind == T5Xxl,
            Self::Wan => kind == Umt5Xxl,
        }
    }
}

fn no_family(found: &[TextEncoderKind], kind: &str) -> Error {
    let names: Vec<_> = found.iter().map(|kind| kind.name()).collect();
    Error::value(format!("no model of type {kind} reads its prompts through {}", names.join(" and ")))
}

/// One text encoder.
#[derive(Clone)]
pub struct ClipEncoder {
    /// Network and weights as they are in the file.
    pub part: TextPart,
    /// The same weights, and the patches on them.
    pub patched: PatchedWeights,
    /// The network over the patched weights.
    encoder: Arc<dyn TextEncoder>,
    /// Tokenizer and chunk layout.
    pub prompts: PromptEncoding,
}

impl ClipEncoder {
    /// The same encoder with one more set of patches on its weights, which are computed when it first runs.
    #[must_use]
    pub fn with_adapter(&self, set: Arc<PatchSet>) -> Self {
        let patched = self.patched.with(set);
        Self { encoder: placed::text_encoder(&self.part, &patched), patched, ..self.clone() }
    }

    /// The weights as the network sees them.
    ///
    /// # Errors
    /// If an adapter holds what is no number.
    pub fn weights(&self) -> Result<StateDict> {
        self.patched.weights().map_err(Error::other)
    }
}

/// The text encoders of one model family. Weights are shared, so a copy costs nothing.
#[derive(Clone)]
pub struct Clip {
    family: ClipFamily,
    encoders: Arc<[ClipEncoder]>,
    /// Hidden layer counted from the end; None: the family's.
    layer: Option<usize>,
    /// Padding of encoders of the T5 kind, beyond the layout's.
    t5_padding: Padding,
    embeddings: Option<Arc<Embeddings>>,
    hooks: Option<ClipHooks>,
}

/// Hooks on text encoders.
#[derive(Clone, Debug)]
pub struct ClipHooks {
    /// The hooks.
    pub hooks: Hooks,
    /// Whether conditionings carry them on to the diffusion model.
    pub apply_to_conditionings: bool,
    /// Whether prompts are encoded for each part of the sampling between keyframes, instead of once for its start.
    pub scheduled: bool,
}

/// The text encoders as they are for a part of the sampling.
pub struct ScheduledClip {
    /// The encoders with the weights of that part.
    pub clip: Clip,
    /// The part, by shares of the sampling; none: all of it.
    pub range: Option<(f64, f64)>,
}

impl GraphType for Clip {
    const NAME: &'static str = "CLIP";
}

/// A prompt cut up for each encoder, in their order.
pub type PromptChunks = Vec<Vec<Chunk>>;

/// An encoded prompt.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// [1, tokens, width].
    pub states: Tensor,
    /// [1, width].
    pub pooled: Option<Tensor>,
    /// Which tokens count, [1, tokens], for models that ask.
    pub mask: Option<Tensor>,
}

impl Clip {
    /// Of the encoders of one checkpoint, or of several files.
    ///
    /// # Errors
    /// If the family does not read its prompts through them.
    pub fn new(
        family: ClipFamily,
        mut parts: Vec<TextPart>,
        embeddings: Option<Arc<Embeddings>>,
    ) -> Result<Self> {
        parts.sort_by_key(|part| match part.kind {
            TextEncoderKind::ClipL => 0,
            TextEncoderKind::ClipG => 1,
            _ => 2,
        });
        let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
        let twice = kinds.windows(2).any(|pair| pair[0] == pair[1]);
        if kinds.is_empty() || twice || !kinds.iter().all(|&kind| family.reads(kind)) {
            return Err(no_family(&kinds, &format!("{family:?}")));
        }
        let encoders = parts.into_iter().map(|part| {
            let vocabulary = match part.kind {
                TextEncoderKind::T5Xxl => Vocabulary::T5,
                TextEncoderKind::Umt5Xxl => {
                    return Err(Error::value("the vocabulary of UMT5 is not part of this program"));
                }
                _ => Vocabulary::Clip,
            };
            let prompts = PromptEncoding::weighted(vocabulary.tokenizer(), family.layout(part.kind));
            let prefix = format!("{}.transformer.", part.kind.name());
            let patched = PatchedWeights::new(part.weights.clone(), &prefix, super::PATCH_CACHE_BYTES);
            Ok(ClipEncoder { encoder: placed::text_encoder(&part, &patched), part, patched, prompts })
        });
        let encoders = encoders.collect::<Result<_>>()?;
        Ok(Self { family, encoders, layer: None, t5_padding: Padding::default(), embeddings, hooks: None })
    }

    /// How the encoders work together.
    pub fn family(&self) -> ClipFamily {
        self.family
    }

    /// The encoders, in the order in which their states are joined.
    pub fn encoders(&self) -> &[ClipEncoder] {
        &self.encoders
    }

    /// The same encoders over other weights (patched ones).
    #[must_use]
    pub fn with_encoders(&self, encoders: Vec<ClipEncoder>) -> Self {
        Self { encoders: encoders.into(), ..self.clone() }
    }

    /// With the hidden layer taken that is the `layer`-th from the end: 1 is the last ("clip skip" 2 is 2).
    #[must_use]
    pub fn with_layer(&self, layer: usize) -> Self {
        Self { layer: Some(layer), ..self.clone() }
    }

    /// With prompts for encoders of the T5 kind padded by at least `min_padding` tokens, and up to `min_length`.
    #[must_use]
    pub fn with_t5_padding(&self, min_padding: usize, min_length: usize) -> Self {
        Self { t5_padding: Padding { min_padding, min_length: Some(min_length) }, ..self.clone() }
    }

    /// With hooks on its weights, in place of those it had.
    #[must_use]
    pub fn with_hooks(&self, hooks: ClipHooks) -> Self {
        Self { hooks: Some(hooks), ..self.clone() }
    }

    /// Its hooks.
    pub fn hooks(&self) -> Option<&ClipHooks> {
        self.hooks.as_ref()
    }

    /// The encoders as hooks make them in the course of sampling.
    ///
    /// # Errors
    /// If what a hook changes weights by is broken.
    pub fn in_course(&self) -> Result<Vec<ScheduledClip>> {
        let Some(ClipHooks { hooks, scheduled, .. }) = &self.hooks else {
            return Ok(vec![ScheduledClip { clip: self.clone(), range: None }]);
        };
        let at = |percent: f64| -> Result<Self> {
            let strengths = hooks
                .0
                .iter()
                .map(|hook| (hook.source.clone(), hook.strength_clip * hook.keyframes.strength_at(percent)));
            let encoders = hooked_encoders(&self.encoders, &strengths.collect::<Vec<_>>())?;
            Ok(self.with_encoders(encoders))
        };
        let mut starts: Vec<f64> = hooks
            .0
            .iter()
            .flat_map(|hook| hook.keyframes.list().iter().map(|keyframe| keyframe.start_percent))
            .filter(|start| *scheduled && *start > 0.0 && *start < 1.0)
            .collect();
        if starts.is_empty() {
            return Ok(vec![ScheduledClip { clip: at(0.0)?, range: None }]);
        }
        starts.push(0.0);
        starts.sort_by(f64::total_cmp);
        starts.dedup();
        let ends = starts.iter().skip(1).copied().chain([1.0]);
        let parts = starts.iter().zip(ends);
        parts.map(|(&start, end)| Ok(ScheduledClip { clip: at(start)?, range: Some((start, end)) })).collect()
    }

    /// Cuts a prompt up for each encoder. `text` says what an encoder reads.
    ///
    /// # Errors
    /// If an embedding that it names is unusable.
    pub fn tokenize<'a>(&self, text: impl Fn(TextEncoderKind) -> &'a str) -> Result<PromptChunks> {
        let chunks = self.encoders.iter().map(|encoder| {
            let kind = encoder.part.kind;
            let source =
                self.embeddings.as_ref().map(|e| e.of(kind.name(), encoder.encoder.embedding_width()));
            let source = source.as_ref().map(|source| source as &dyn EmbeddingSource);
            let padding = match kind {
                TextEncoderKind::T5Xxl | TextEncoderKind::Umt5Xxl => self.t5_padding,
                _ => Padding::default(),
            };
            encoder.prompts.tokenize(text(kind), source, padding).map_err(Error::other)
        });
        chunks.collect()
    }

    /// Encodes one prompt for all encoders.
    ///
    /// # Errors
    /// As [`Self::tokenize`] and [`Self::encode`].
    pub fn encode_text(&self, text: &str) -> Result<EncodedPrompt> {
        self.encode(&self.tokenize(|_| text)?)
    }

    /// Fills up the CLIP encoders' shorter prompts with empty ones, so that all have as many chunks.
    ///
    /// # Errors
    /// As [`Self::tokenize`].
    pub fn equalize(&self, chunks: &mut PromptChunks) -> Result<()> {
        let empty = self.tokenize(|_| "")?;
        let in_windows = |encoder: &ClipEncoder| encoder.prompts.layout.pad_to_max;
        let lengths = chunks.iter().zip(&*self.encoders).filter(|(_, encoder)| in_windows(encoder));
        let most = lengths.map(|(chunks, _)| chunks.len()).max().unwrap_or(0);
        for ((chunks, empty), encoder) in chunks.iter_mut().zip(empty).zip(&*self.encoders) {
            while in_windows(encoder) && chunks.len() < most && !empty.is_empty() {
                chunks.extend(empty.iter().cloned());
            }
        }
        Ok(())
    }

    /// Encodes tokens and joins what the encoders say. Stable Diffusion 3 sees nothing of an encoder without chunks,
    /// others its empty prompt.
    ///
    /// # Errors
    /// If a token is outside an encoder's table, or a sequence too long for it.
    pub fn encode(&self, chunks: &PromptChunks) -> Result<EncodedPrompt> {
        let outputs = self
            .encoders
            .iter()
            .zip(chunks)
            .filter(|(_, chunks)| self.family != ClipFamily::Sd3 || !chunks.is_empty())
            .map(|(encoder, chunks)| Ok((encoder.part.kind, self.encode_with(encoder, chunks, true)?)));
        let outputs = outputs.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(match self.family {
            ClipFamily::Sd | ClipFamily::Sdxl => side_by_side(outputs)?,
            ClipFamily::Sd3 => joined_for_sd3(outputs)?,
            ClipFamily::Flux => joined_for_flux(outputs)?,
            ClipFamily::Mochi | ClipFamily::Ltxv => {
                let mut prompt = side_by_side(outputs.clone())?;
                prompt.mask = outputs.into_iter().find_map(|(_, output)| output.mask);
                prompt
            }
            ClipFamily::Wan => {
                let mask = outputs.iter().find_map(|(_, output)| output.mask.clone());
                let mut prompt = side_by_side(outputs)?;
                if let Some(mask) = mask {
                    prompt.states = prompt.states.broadcast_mul(&mask.unsqueeze(2)?)?;
                }
                prompt
            }
        })
    }

    /// The pooled text of the last encoder before its projection, [1, width].
    ///
    /// # Errors
    /// As [`Self::tokenize`] and [`Self::encode`], or if the encoder pools nothing.
    pub fn pooled_before_projection(&self, text: &str) -> Result<Tensor> {
        let chunks = self.tokenize(|_| text)?;
        let pooled = match self.encoders.iter().zip(&chunks).next_back() {
            Some((encoder, chunks)) => self.encode_with(encoder, chunks, false)?.pooled,
            None => None,
        };
        pooled.ok_or_else(|| Error::value("this text encoder makes no pooled text"))
    }

    fn encode_with(
        &self,
        encoder: &ClipEncoder,
        chunks: &[Chunk],
        projected: bool,
    ) -> candle_core::Result<EncoderOutput> {
        let options = self.options(encoder.part.kind);
        encode_weighted(chunks, &encoder.prompts.layout, |batch| {
            let tokens = batch.iter().map(|chunk| chunk.iter().map(|t| t.token.clone()).collect()).collect();
            let mask = self
                .family
                .masks()
                .then(|| batch.iter().map(|chunk| mask_of(chunk, encoder)).collect::<Vec<_>>());
            let output = encoder.encoder.encode(&TextInput { tokens, mask: mask.clone() }, options)?;
            let pooled = match self.family {
                _ if !projected => output.pooled,
                // Flux, and SD3 for its first encoder, read the pooled text before the projection.
                ClipFamily::Flux | ClipFamily::Sd3 if encoder.part.kind == TextEncoderKind::ClipL => {
                    output.pooled
                }
                _ => output.projected.or(output.pooled),
            };
            let mask = mask.map(|mask| mask_tensor(&mask)).transpose()?;
            Ok(EncoderOutput { hidden: output.states, pooled, mask })
        })
    }

    /// Which states the family reads: SD1 the last layer and SD2 the one before, both normed; SDXL and SD3 the one
    /// before the last as it is; T5 its last.
    fn options(&self, kind: TextEncoderKind) -> TextOptions {
        let usual = match (self.family, kind) {
            (_, TextEncoderKind::T5Xxl | TextEncoderKind::Umt5Xxl) => return TextOptions::default(),
            (ClipFamily::Sdxl | ClipFamily::Sd3, _) | (_, TextEncoderKind::ClipH) => 2,
            _ => 1,
        };
        let final_norm = !matches!(self.family, ClipFamily::Sdxl | ClipFamily::Sd3);
        TextOptions { layer: self.layer.unwrap_or(usual), final_norm }
    }
}

/// The tokens up to the first end token count.
fn mask_of(chunk: &Chunk, encoder: &ClipEncoder) -> Vec<bool> {
    let end = encoder.prompts.layout.end;
    let length = chunk
        .iter()
        .position(|t| t.token.id().is_some_and(|id| Some(id) == end))
        .map_or(chunk.len(), |i| i + 1);
    (0..chunk.len()).map(|i| i < length).collect()
}

fn mask_tensor(mask: &[Vec<bool>]) -> candle_core::Result<Tensor> {
    let rows: Vec<Vec<f32>> =
        mask.iter().map(|row| row.iter().map(|&on| f32::from(u8::from(on))).collect()).collect();
    Tensor::new(rows, &Device::Cpu)
}

type Outputs = Vec<(TextEncoderKind, EncoderOutput)>;

/// States joined on the feature axis, cut to the shortest; the pooled text of the last encoder.
fn side_by_side(outputs: Outputs) -> candle_core::Result<EncodedPrompt> {
    let tokens = outputs.iter().map(|(_, o)| o.hidden.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
    let shortest = tokens.into_iter().min().unwrap_or(0);
    let cut = outputs
        .iter()
        .map(|(_, o)| o.hidden.narrow(1, 0, shortest))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let pooled = outputs.into_iter().next_back().and_then(|(_, o)| o.pooled);
    Ok(EncodedPrompt { states: Tensor::cat(&cut, 2)?, pooled, mask: None })
}

/// States of the CLIP encoders side by side, zeros up to T5's width, then T5's tokens; both pooled texts side by side.
/// Without any text: zeros.
fn joined_for_sd3(outputs: Outputs) -> candle_core::Result<EncodedPrompt> {
    let (t5, clip): (Outputs, Outputs) =
        outputs.into_iter().partition(|(kind, _)| *kind == TextEncoderKind::T5Xxl);
    let t5 = t5.into_iter().next().map(|(_, output)| output.hidden);
    let width = t5.as_ref().map_or(Ok(T5_WIDTH), |t5| t5.dim(2))?;
    let pooled_of = |kind, width| {
        let pooled = clip.iter().find(|(k, _)| *k == kind).and_then(|(_, output)| output.pooled.clone());
        pooled.map_or_else(|| Tensor::zeros((1, width), DType::F32, &Device::Cpu), Ok)
    };
    let pooled =
        [pooled_of(TextEncoderKind::ClipL, CLIP_L_WIDTH)?, pooled_of(TextEncoderKind::ClipG, CLIP_G_WIDTH)?];
    let pooled = Some(Tensor::cat(&pooled, 1)?);
    let before = if clip.iter().any(|(kind, _)| *kind == TextEncoderKind::ClipL) { 0 } else { CLIP_L_WIDTH };
    let clip_states = if clip.is_empty() { None } else { Some(side_by_side(clip)?.states) };
    let clip_states = clip_states.map(|states| {
        let states = states.pad_with_zeros(2, before, 0)?;
        let missing = width.saturating_sub(states.dim(2)?);
        states.pad_with_zeros(2, 0, missing)
    });
    let parts: Vec<Tensor> = clip_states.transpose()?.into_iter().chain(t5).collect();
    let states = match parts.as_slice() {
        [] => Tensor::zeros((1, CLIP_TOKENS, T5_WIDTH), DType::F32, &Device::Cpu)?,
        parts => Tensor::cat(parts, 1)?,
    };
    Ok(EncodedPrompt { states, pooled, mask: None })
}

/// T5's states and CLIP-L's pooled text. A missing T5 leaves a sequence of zeros.
fn joined_for_flux(outputs: Outputs) -> candle_core::Result<EncodedPrompt> {
    let mut prompt = EncodedPrompt {
        states: Tensor::zeros((1, 256, T5_WIDTH), DType::F32, &Device::Cpu)?,
        pooled: None,
        mask: None,
    };
    for (kind, output) in outputs {
        match kind {
            TextEncoderKind::T5Xxl => prompt.states = output.hidden,
            _ => prompt.pooled = output.pooled,
        }
    }
    Ok(prompt)
}
