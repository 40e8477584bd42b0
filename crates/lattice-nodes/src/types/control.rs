//! Networks that stand beside a diffusion model. Their weights are mapped, so a copy costs nothing.

use std::sync::Arc;

use crate::node::GraphType;

/// A control network.
#[derive(Clone, Debug)]
pub struct ControlNet {
    /// The network.
    pub network: Arc<lattice_models::ControlNetwork>,
    /// Kinds of hint it is given, for networks that tell them apart; none: it finds out by itself.
    pub kinds: Arc<[usize]>,
}

impl From<lattice_models::ControlNetwork> for ControlNet {
    fn from(network: lattice_models::ControlNetwork) -> Self {
        Self { network: Arc::new(network), kinds: [].into() }
    }
}

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

/// Layers that bind texts to boxes of the picture.
#[derive(Clone, Debug)]
pub struct Gligen(pub Arc<lattice_models::sd_unet::Gligen>);

impl GraphType for Gligen {
    const NAME: &'static str = "GLIGEN";
}
