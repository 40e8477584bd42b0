//! The nodes, one module per category.

mod conditioning;
mod coverage;
mod guidance;
mod image;
mod image_files;
mod inpaint;
mod latent;
mod loaders;
mod sampling;
mod text;
mod vae;

use lattice_graph::Registry;

pub use coverage::{Coverage, coverage};

/// Largest side of a picture that widgets offer.
pub(crate) const MAX_RESOLUTION: usize = 16384;

/// All nodes.
pub fn registry() -> Registry {
    let categories = [
        conditioning::nodes(),
        guidance::nodes(),
        image::nodes(),
        image_files::nodes(),
        inpaint::nodes(),
        latent::nodes(),
        loaders::nodes(),
        sampling::nodes(),
        text::nodes(),
        vae::nodes(),
    ];
    categories.into_iter().flatten().collect()
}
