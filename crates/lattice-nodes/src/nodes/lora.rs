//! LoRA and its kin on models and text encoders.

use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_weights::adapters::{AdapterFile, KeyTable};
use lattice_weights::patcher::PatchSet;

use crate::Result;
use crate::node::node;
use crate::services::{Folders, ModelCache};
use crate::types::{Clip, Model};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![lora_loader, lora_loader_model_only]
}

/// Puts an adapter (LoRA, LoCon, LoHa, LoKr, OFT, BOFT, GLoRA, DoRA, differences) on a model and its text encoders. Several
/// loaders stack; negative strengths take away.
#[node(name = "LoraLoader", title = "Load LoRA", category = "loaders", module = "nodes")]
fn lora_loader(
    ctx: &CallContext<'_>,
    /// The diffusion model.
    model: Model,
    /// Its text encoders.
    clip: Clip,
    /// A file of the folder loras.
    #[choice(files = "loras")]
    lora_name: &str,
    /// How strongly the diffusion model is changed.
    #[widget(default = 1.0, min = -100.0, max = 100.0, step = 0.01)]
    strength_model: f64,
    /// How strongly the text encoders are changed.
    #[widget(default = 1.0, min = -100.0, max = 100.0, step = 0.01)]
    strength_clip: f64,
) -> Result<(Model, Clip)> {
    if strength_model == 0.0 && strength_clip == 0.0 {
        return Ok((model, clip));
    }
    let file = ctx.service::<ModelCache>()?.adapter(&*ctx.service::<Folders>()?, lora_name)?;
    let network = KeyTable::network(model.patched.base());
    let names: Vec<&str> = clip.encoders().iter().map(|encoder| encoder.part.kind.name()).collect();
    let texts: Vec<KeyTable> = clip
        .encoders()
        .iter()
        .map(|encoder| KeyTable::text_encoder(encoder.part.kind.name(), &names, encoder.patched.base()))
        .collect();
    report_unmatched(&file, &std::iter::once(&network).chain(&texts).collect::<Vec<_>>());
    let model = model.with_adapter(patches(&file, &network, strength_model))?;
    let encoders = clip.encoders().iter().zip(&texts);
    let encoders =
        encoders.map(|(encoder, table)| encoder.with_adapter(patches(&file, table, strength_clip)));
    let clip = clip.with_encoders(encoders.collect());
    Ok((model, clip))
}

/// Puts an adapter on a model alone.
#[node(name = "LoraLoaderModelOnly", title = "LoraLoaderModelOnly", category = "loaders", module = "nodes")]
fn lora_loader_model_only(
    ctx: &CallContext<'_>,
    model: Model,
    #[choice(files = "loras")] lora_name: &str,
    #[widget(default = 1.0, min = -100.0, max = 100.0, step = 0.01)] strength_model: f64,
) -> Result<Model> {
    if strength_model == 0.0 {
        return Ok(model);
    }
    let file = ctx.service::<ModelCache>()?.adapter(&*ctx.service::<Folders>()?, lora_name)?;
    let table = KeyTable::network(model.patched.base());
    // What belongs to text encoders finds no place here, rightly; that nothing does is worth a word.
    if file.unmatched(&[&table]).matched == 0 {
        report_unmatched(&file, &[&table]);
    }
    model.with_adapter(patches(&file, &table, strength_model))
}

fn patches(file: &AdapterFile, table: &KeyTable, strength: f64) -> Arc<PatchSet> {
    Arc::new(PatchSet::new(file.patches(table), strength))
}

/// Says once per load how much of a file found no place: an adapter of another family would silently do nothing.
fn report_unmatched(file: &AdapterFile, tables: &[&KeyTable]) {
    let unmatched = file.unmatched(tables);
    let Some(first) = unmatched.names.first() else { return };
    let missed = unmatched.names.len();
    if unmatched.matched == 0 {
        tracing::warn!(
            "{}: none of its {missed} modules fits this model; it was made for another family (the first is {first})",
            file.source()
        );
    } else {
        tracing::warn!(
            "{}: {} modules fit this model, {missed} names do not (the first is {first})",
            file.source(),
            unmatched.matched
        );
    }
}
