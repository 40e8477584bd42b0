//! Encoders of pictures.

use std::sync::Arc;

use crate::node::GraphType;

/// A vision tower. Its weights are mapped, so a copy costs nothing.
#[derive(Clone)]
pub struct ClipVision(pub Arc<lattice_models::ClipVision>);

impl GraphType for ClipVision {
    const NAME: &'static str = "CLIP_VISION";
}
