//! The nodes, one module per category.

mod attention_multiply;
mod conditioning;
mod conditioning_properties;
mod control;
mod coverage;
mod gligen;
mod guidance;
mod hooks;
mod image;
mod image_animation;
mod image_batch;
mod image_effects;
mod image_files;
mod image_sets;
mod image_transform;
mod image_websocket;
mod inpaint;
mod latent;
mod latent_batch;
mod latent_edit;
mod latent_empty;
mod latent_files;
mod loaders;
mod loaders_other;
mod lora;
mod mask;
mod model_merge;
mod model_merge_blocks;
mod model_patches;
mod model_sampling;
mod model_save;
mod model_wrappers;
mod previews;
mod primitive;
mod samplers;
mod sampling;
mod sampling_custom;
mod sampling_run;
mod schedulers;
mod sigmas;
mod strings;
mod text;
mod text_families;
mod upscaling;
mod vae;
mod vision;

use lattice_graph::Registry;

pub use coverage::{Coverage, coverage};

/// Largest side of a picture that widgets offer.
pub(crate) const MAX_RESOLUTION: usize = 16384;

/// All nodes.
pub fn registry() -> Registry {
    let categories = [
        attention_multiply::nodes(),
        conditioning::nodes(),
        conditioning_properties::nodes(),
        control::nodes(),
        gligen::nodes(),
        guidance::nodes(),
        hooks::nodes(),
        image::nodes(),
        image_animation::nodes(),
        image_batch::nodes(),
        image_effects::nodes(),
        image_files::nodes(),
        image_sets::nodes(),
        image_transform::nodes(),
        image_websocket::nodes(),
        inpaint::nodes(),
        latent::nodes(),
        latent_batch::nodes(),
        latent_edit::nodes(),
        latent_empty::nodes(),
        latent_files::nodes(),
        loaders::nodes(),
        loaders_other::nodes(),
        lora::nodes(),
        mask::nodes(),
        model_merge::nodes(),
        model_merge_blocks::nodes(),
        model_patches::nodes(),
        model_sampling::nodes(),
        model_save::nodes(),
        model_wrappers::nodes(),
        primitive::nodes(),
        samplers::nodes(),
        sampling::nodes(),
        sampling_custom::nodes(),
        schedulers::nodes(),
        sigmas::nodes(),
        strings::nodes(),
        text::nodes(),
        text_families::nodes(),
        upscaling::nodes(),
        vae::nodes(),
        vision::nodes(),
    ];
    categories.into_iter().flatten().collect()
}
