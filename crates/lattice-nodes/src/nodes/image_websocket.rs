//! Pictures for clients instead of files.

use std::sync::Arc;

use lattice_graph::{CallContext, Extensions, Inputs, Node, PreviewImage};
use lattice_media::{pixels, png};
use serde_json::Value as Json;

use crate::node::node;
use crate::types::Image;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![save_image_websocket]
}

/// zlib level: the files travel once and are not kept.
const LEVEL: u8 = 1;

/// Sends pictures to the client as PNG previews; nothing is saved.
#[node(
    name = "SaveImageWebsocket",
    category = "api/image",
    module = "custom_nodes.websocket_image_save",
    output_node,
    fingerprint = always_another
)]
fn save_image_websocket(ctx: &CallContext<'_>, images: Image) -> Result<()> {
    let pictures = pixels::from_images(&images.0)?;
    for (i, picture) in pictures.iter().enumerate() {
        let data = png::encode(picture, &[], LEVEL).map_err(Error::other)?.into();
        ctx.progress(i as f64, pictures.len() as f64, Some(PreviewImage { mime: "image/png", data }))?;
    }
    Ok(())
}

/// Each prompt's client wants the pictures, whether or not another one got the same.
fn always_another(_: &Extensions, _: &Inputs) -> Result<Json> {
    Err(Error::value("pictures are sent anew for each prompt"))
}
