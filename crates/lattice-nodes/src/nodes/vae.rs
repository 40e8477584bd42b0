//! Between pictures and latents.

use std::sync::Arc;

use lattice_diffusion::tiled::{Tiles, mean_of_tilings};
use lattice_graph::Node;

use crate::Result;
use crate::node::node;
use crate::types::{Image, Latent, Vae};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![vae_decode, vae_encode, vae_decode_tiled, vae_encode_tiled]
}

/// Turns latents into pictures.
#[node(name = "VAEDecode", title = "VAE Decode", category = "latent", module = "nodes")]
fn vae_decode(
    /// What to decode.
    samples: Latent,
    /// The autoencoder of the latents' model family.
    vae: Vae,
) -> Result<Image> {
    Ok(Image(vae.decode(&samples.samples)?))
}

/// Turns pictures into latents. Alpha is dropped.
#[node(name = "VAEEncode", title = "VAE Encode", category = "latent", module = "nodes")]
fn vae_encode(pixels: Image, vae: Vae) -> Result<Latent> {
    Ok(Latent::new(vae.encode(&pixels.0)?))
}

/// Turns latents into pictures tile by tile, in little memory. Three tilings are averaged, so no seam shows.
#[node(name = "VAEDecodeTiled", title = "VAE Decode (Tiled)", category = "_for_testing", module = "nodes")]
fn vae_decode_tiled(
    samples: Latent,
    vae: Vae,
    /// Side of a tile in pixels.
    #[widget(default = 512, min = 64, max = 4096, step = 32)]
    tile_size: usize,
    /// Pixels that neighbouring tiles share, a quarter of a tile at the most.
    #[widget(default = 64, min = 0, max = 4096, step = 32)]
    overlap: usize,
    /// Frames of a tile; only for autoencoders that compress time.
    #[widget(default = 64, min = 8, max = 4096, step = 4)]
    #[name("temporal_size")]
    _temporal_size: usize,
    /// Frames that neighbouring tiles share.
    #[widget(default = 8, min = 4, max = 4096, step = 4)]
    #[name("temporal_overlap")]
    _temporal_overlap: usize,
) -> Result<Image> {
    let factor = vae.network().spatial_factor();
    let cells = |pixels: usize| pixels / factor;
    let tiles = Tiles {
        x: cells(tile_size).max(1),
        y: cells(tile_size).max(1),
        overlap: cells(overlap.min(tile_size / 4)),
    };
    let decode = |tile: &candle_core::Tensor| vae.decode_planes(tile);
    let planes = mean_of_tilings(&samples.samples, &tiles.decoding(), factor as f64, decode)?;
    Ok(Image(vae.pictures(&planes)?))
}

/// Turns pictures into latents tile by tile, in little memory.
#[node(name = "VAEEncodeTiled", title = "VAE Encode (Tiled)", category = "_for_testing", module = "nodes")]
fn vae_encode_tiled(
    pixels: Image,
    vae: Vae,
    /// Side of a tile in pixels.
    #[widget(default = 512, min = 64, max = 4096, step = 64)]
    tile_size: usize,
    /// Pixels that neighbouring tiles share, a quarter of a tile at the most.
    #[widget(default = 64, min = 0, max = 4096, step = 32)]
    overlap: usize,
    /// Frames of a tile; only for autoencoders that compress time.
    #[widget(default = 64, min = 8, max = 4096, step = 4)]
    #[name("temporal_size")]
    _temporal_size: usize,
    /// Frames that neighbouring tiles share.
    #[widget(default = 8, min = 4, max = 4096, step = 4)]
    #[name("temporal_overlap")]
    _temporal_overlap: usize,
) -> Result<Latent> {
    let factor = vae.network().spatial_factor();
    let tiles = Tiles { x: tile_size, y: tile_size, overlap: overlap.min(tile_size / 4) };
    let encode = |tile: &candle_core::Tensor| vae.encode_mean(tile);
    let planes = vae.planes(&pixels.0)?;
    Ok(Latent::new(mean_of_tilings(&planes, &tiles.encoding(), 1.0 / factor as f64, encode)?))
}
