//! Networks that stand beside a diffusion model. Their weights are mapped, so a copy costs nothing.

use std::sync::Arc;

use crate::node::GraphType;

/// A control network.
#[derive(Clone, Debug)]
pub struct ControlNet(pub Arc<lattice_models::ControlNetwork>);

impl GraphType for ControlNet {
    const NAME: &'static str = "CONTROL_NET";
}

/// A network that makes text tokens of pictures.
#[derive(Clone, Debug)]
pub struct StyleModel(pub Arc<lattice_models::StyleModel>);

impl GraphType for StyleModel {
    const NAME: &'static str = "STYLE_MODEL";
}

/// A network that enlarges pictures.
#[derive(Clone, Debug)]
pub struct UpscaleModel(pub Arc<lattice_models::Upscaler>);

impl GraphType for UpscaleModel {
    const NAME: &'static str = "UPSCALE_MODEL";
}
