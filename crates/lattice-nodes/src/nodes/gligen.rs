//! Texts in boxes of the picture.

use std::sync::Arc;

use lattice_diffusion::conditioning::{BoxPrompt, GroundingHint};
use lattice_graph::{CallContext, Node};

use super::MAX_RESOLUTION;
use super::conditioning::changed;
use crate::node::node;
use crate::services::{Folders, open};
use crate::types::{Clip, Conditioning, Gligen};
use crate::{Error, Result};

/// Pixels per latent cell.
const CELL: usize = 8;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![gligen_loader, gligen_text_box_apply]
}

/// Loads GLIGEN layers, by which a Stable Diffusion 1.x draws texts into boxes.
#[node(name = "GLIGENLoader", title = "GLIGENLoader", category = "loaders", module = "nodes")]
fn gligen_loader(ctx: &CallContext<'_>, #[choice(files = "gligen")] gligen_name: &str) -> Result<Gligen> {
    let dict = open(&ctx.service::<Folders>()?.find("gligen", gligen_name)?)?;
    let layers = lattice_models::sd_unet::Gligen::load(&dict).map_err(Error::other)?;
    Ok(Gligen(Arc::new(layers)))
}

/// Puts a text into a box of the picture, in pixels. Nodes in a row add boxes.
#[node(
    name = "GLIGENTextBoxApply",
    title = "GLIGENTextBoxApply",
    category = "conditioning/gligen",
    module = "nodes"
)]
fn gligen_text_box_apply(
    conditioning_to: Conditioning,
    clip: Clip,
    gligen_textbox_model: Gligen,
    /// What to show in the box.
    #[widget(multiline = true, dynamicPrompts = true)]
    text: &str,
    #[widget(default = 64, min = 8, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 64, min = 8, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] y: usize,
) -> Result<Conditioning> {
    let text = clip.pooled_before_projection(text)?;
    let added = BoxPrompt { text, size: (height / CELL, width / CELL), offset: (y / CELL, x / CELL) };
    Ok(changed(&conditioning_to, |options| {
        let before = options.grounding.as_ref().map(|hint| hint.boxes.as_slice()).unwrap_or_default();
        let boxes = before.iter().chain([&added]).cloned().collect();
        options.grounding = Some(Arc::new(GroundingHint { layers: gligen_textbox_model.0.clone(), boxes }));
    }))
}
