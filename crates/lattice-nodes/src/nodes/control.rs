//! Control networks: pictures that say where what goes.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::conditioning::{
    self, AppliedControl, ControlHint, ControlSource, ControlText, Entry, HintEncoder,
};
use lattice_graph::{CallContext, Node};
use lattice_media::resize::{Crop, Method, common_upscale};
use lattice_models::ControlNetwork;

use super::conditioning::changed;
use super::text::encoded_text;
use crate::node::{Choice, node};
use crate::services::{Folders, open};
use crate::types::{Clip, Conditioning, ControlNet, Image, Mask, Model, Vae};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        control_net_loader,
        diff_control_net_loader,
        control_net_apply,
        control_net_apply_advanced,
        control_net_apply_sd3,
        control_net_inpainting_ali_mama_apply,
        set_union_control_net_type,
        clip_text_encode_controlnet
    ]
}

/// Loads a ControlNet or T2I-Adapter.
#[node(name = "ControlNetLoader", title = "Load ControlNet Model", category = "loaders", module = "nodes")]
fn control_net_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "controlnet")] control_net_name: &str,
) -> Result<ControlNet> {
    let dict = open(&ctx.service::<Folders>()?.find("controlnet", control_net_name)?)?;
    let network = ControlNetwork::load(&dict).map_err(Error::other)?;
    Ok(network.into())
}

/// Loads a ControlNet that is stored as the difference to the model it was made from.
#[node(
    name = "DiffControlNetLoader",
    title = "Load ControlNet Model (diff)",
    category = "loaders",
    module = "nodes"
)]
fn diff_control_net_loader(
    ctx: &CallContext<'_>,
    model: Model,
    #[choice(files = "controlnet")] control_net_name: &str,
) -> Result<ControlNet> {
    let dict = open(&ctx.service::<Folders>()?.find("controlnet", control_net_name)?)?;
    let network = ControlNetwork::load_with_base(&dict, &model.weights()?).map_err(Error::other)?;
    Ok(network.into())
}

/// Controls a prompt, and the one that it is guided away from, by a picture.
#[node(
    name = "ControlNetApply",
    title = "Apply ControlNet (OLD)",
    category = "conditioning/controlnet",
    module = "nodes",
    deprecated
)]
fn control_net_apply(
    conditioning: Conditioning,
    control_net: ControlNet,
    image: Image,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
) -> Result<Conditioning> {
    let apply = Apply {
        control_net,
        picture: image.planes()?,
        vae: None,
        mask: None,
        strength,
        range: (0.0, 1.0),
        to_uncond: true,
    };
    let [conditioning] = apply.to([conditioning]);
    Ok(conditioning)
}

/// Controls both prompts by a picture, in a part of the sampling.
#[node(
    name = "ControlNetApplyAdvanced",
    title = "Apply ControlNet",
    category = "conditioning/controlnet",
    module = "nodes",
    outputs("positive", "negative")
)]
fn control_net_apply_advanced(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Image,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
    // For networks that read latents. Those of Stable Diffusion 1.x, 2.x and SDXL read pixels.
    vae: Option<Vae>,
) -> Result<(Conditioning, Conditioning)> {
    let (picture, range) = (image.planes()?, (start_percent, end_percent));
    let apply = Apply { control_net, picture, vae, mask: None, strength, range, to_uncond: false };
    let [positive, negative] = apply.to([positive, negative]);
    Ok((positive, negative))
}

/// Controls both prompts by a picture, in a part of the sampling; for networks that read latents.
#[node(
    name = "ControlNetApplySD3",
    title = "Apply Controlnet with VAE",
    category = "conditioning/controlnet",
    module = "comfy_extras.nodes_sd3",
    v3,
    deprecated,
    outputs("positive", "negative")
)]
fn control_net_apply_sd3(
    #[widget] positive: Conditioning,
    #[widget] negative: Conditioning,
    #[widget] control_net: ControlNet,
    #[widget] vae: Vae,
    #[widget] image: Image,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
) -> Result<(Conditioning, Conditioning)> {
    let vae = Some(vae);
    control_net_apply_advanced(
        positive,
        negative,
        control_net,
        image,
        strength,
        start_percent,
        end_percent,
        vae,
    )
}

/// Controls both prompts by a picture with a hole to paint in, for networks that read where it is.
#[node(
    name = "ControlNetInpaintingAliMamaApply",
    title = "ControlNetInpaintingAliMamaApply",
    category = "conditioning/controlnet",
    module = "comfy_extras.nodes_controlnet",
    outputs("positive", "negative")
)]
#[expect(clippy::too_many_arguments, reason = "the node has these inputs")]
fn control_net_inpainting_ali_mama_apply(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    vae: Vae,
    image: Image,
    mask: Mask,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
) -> Result<(Conditioning, Conditioning)> {
    let mut picture = image.planes()?;
    let mut kept = None;
    if control_net.network.reads_mask() {
        // 1 is what stays.
        let mask = mask.planes()?.affine(-1.0, 1.0)?;
        let (_, _, height, width) = picture.dims4()?;
        let over = common_upscale(&mask, width, height, Method::Bilinear, Crop::Center)?.round()?;
        picture = picture.broadcast_mul(&over)?;
        kept = Some(mask);
    }
    let range = (start_percent, end_percent);
    let apply = Apply { control_net, picture, vae: Some(vae), mask: kept, strength, range, to_uncond: false };
    let [positive, negative] = apply.to([positive, negative]);
    Ok((positive, negative))
}

/// What the kinds of hint are called that ControlNets for several of them tell apart.
#[derive(Clone, Copy, Choice)]
enum HintKind {
    #[choice("auto")]
    Auto,
    #[choice("openpose")]
    Pose,
    #[choice("depth")]
    Depth,
    #[choice("hed/pidi/scribble/ted")]
    Sketch,
    #[choice("canny/lineart/anime_lineart/mlsd")]
    Lines,
    #[choice("normal")]
    Normal,
    #[choice("segment")]
    Segment,
    #[choice("tile")]
    Tile,
    #[choice("repaint")]
    Repaint,
}

impl HintKind {
    /// Its number; none: the network finds out.
    fn number(self) -> Option<usize> {
        (self as usize).checked_sub(1)
    }
}

/// Tells a ControlNet for several kinds of hint which one it is given.
#[node(
    name = "SetUnionControlNetType",
    title = "SetUnionControlNetType",
    category = "conditioning/controlnet",
    module = "comfy_extras.nodes_controlnet"
)]
fn set_union_control_net_type(control_net: ControlNet, #[name("type")] kind: HintKind) -> ControlNet {
    ControlNet { kinds: kind.number().into_iter().collect(), ..control_net }
}

/// Encodes a text that control networks read instead of the prompt.
#[node(
    name = "CLIPTextEncodeControlnet",
    category = "_for_testing/conditioning",
    module = "comfy_extras.nodes_cond",
    v3,
    experimental
)]
fn clip_text_encode_controlnet(
    #[widget] clip: Clip,
    #[widget] conditioning: Conditioning,
    #[widget(multiline = true, dynamicPrompts = true)] text: &str,
) -> Result<Conditioning> {
    let encoded = encoded_text(&clip, text)?;
    let Some(Entry { tensor, options }) = encoded.0.first() else { return Ok(conditioning) };
    let text = ControlText { tensor: tensor.clone(), pooled: options.pooled.clone() };
    Ok(changed(&conditioning, |options| options.control_text = Some(text.clone())))
}

/// A control network about to be applied.
struct Apply {
    control_net: ControlNet,
    /// Planes [n, 3, H, W] in 0..1.
    picture: Tensor,
    /// For networks that read latents.
    vae: Option<Vae>,
    /// For networks that read where to paint, [n, 1, H, W].
    mask: Option<Tensor>,
    strength: f64,
    range: (f64, f64),
    to_uncond: bool,
}

impl Apply {
    /// Every entry of the lists with the control behind what controls it already. Entries that had the same before have the
    /// same afterwards, and so still share calls.
    fn to<const N: usize>(self, lists: [Conditioning; N]) -> [Conditioning; N] {
        if self.strength == 0.0 {
            return lists;
        }
        let encoder = self.vae.clone().map(|vae| Arc::new(vae) as Arc<dyn HintEncoder>);
        let mut made: Vec<(Option<Arc<dyn ControlSource>>, Arc<dyn ControlSource>)> = Vec::new();
        let mut control = |previous: Option<Arc<dyn ControlSource>>| -> Arc<dyn ControlSource> {
            let same = |(of, _): &&(Option<Arc<dyn ControlSource>>, _)| match (of, &previous) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            if let Some((_, source)) = made.iter().find(same) {
                return source.clone();
            }
            let ControlNet { network, kinds } = self.control_net.clone();
            let picture = self.picture.clone();
            let applied = AppliedControl::new(network, picture, self.strength, self.range, previous.clone())
                .with_kinds(kinds)
                .with_encoder(encoder.clone())
                .with_mask(self.mask.clone());
            let source: Arc<dyn ControlSource> = Arc::new(applied);
            made.push((previous, source.clone()));
            source
        };
        lists.map(|list| {
            let mut entries: conditioning::Conditioning = list.0;
            for Entry { options, .. } in &mut entries {
                let source = control(options.control.take().map(|hint| hint.source));
                options.control = Some(ControlHint { source, apply_to_uncond: self.to_uncond });
            }
            Conditioning(entries)
        })
    }
}
