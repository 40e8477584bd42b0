//! Patching one parameter: in f32, patch after patch, always from the original weight.

use std::sync::Arc;

use lattice_kernels::Weight;

use super::decompose::decompose;
use super::linalg::{Matrix, multiply_add};
use super::low_rank::{glora, loha, lokr, tucker};
use super::module::{Adapter, AdapterKind};
use super::names::Slice;
use super::rotation::{boft, oft};

/// One change of one parameter: W <- model_strength * W, then W += strength * change.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What changes it.
    pub adapter: Arc<Adapter>,
    /// Factor of the change; 0 leaves the weight as it is.
    pub strength: f64,
    /// Factor of the weight itself (model merging).
    pub model_strength: f64,
    /// The part of the parameter that is meant.
    pub slice: Option<Slice>,
    /// The halves of the change (scale and shift, in the other order in diffusers' files) swap places along axis 0.
    pub swap_halves: bool,
}

/// A change that cannot be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PatchError {
    /// The adapter was made for another weight.
    #[error("{file}: `{module}` does not fit the weight of shape {shape:?}: {detail}")]
    Shape {
        /// The adapter's file.
        file: String,
        /// The adapter's module.
        module: String,
        /// Shape of the model's weight.
        shape: Vec<usize>,
        /// What does not fit.
        detail: String,
    },
    /// The file holds NaN or infinity.
    #[error("{file}: `{module}`: a tensor of shape {shape:?} holds values that are not finite")]
    NotFinite {
        /// The adapter's file.
        file: String,
        /// The adapter's module.
        module: String,
        /// Shape of the adapter's tensor.
        shape: Vec<usize>,
    },
}

/// A parameter while it is patched.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Parameter {
    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    pub(super) fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}

/// The patched values of a parameter and its (possibly grown) shape.
///
/// A change that does not fit is logged and left out.
///
/// # Errors
/// If an adapter's tensor holds NaN or infinity.
pub fn apply_patches(
    values: Vec<f32>,
    shape: &[usize],
    patches: &[Patch],
) -> Result<(Vec<f32>, Vec<usize>), PatchError> {
    let mut whole = Parameter { shape: shape.to_vec(), values };
    for patch in patches {
        let outcome = match patch.slice {
            None => patch.apply(&mut whole),
            Some(slice) => match slice.take(&whole.shape, &whole.values) {
                Some((shape, values)) => {
                    let mut part = Parameter { shape, values };
                    let outcome = patch.apply(&mut part);
                    slice.put(&whole.shape.clone(), &mut whole.values, &part.values);
                    outcome
                }
                None => Err(patch.adapter.misfit(&whole.shape, format!("it is meant for {slice}"))),
            },
        };
        match outcome {
            Err(e @ PatchError::Shape { .. }) => tracing::warn!("{e}; the weight stays as it is"),
            other => other?,
        }
    }
    Ok((whole.values, whole.shape))
}

impl Patch {
    fn apply(&self, w: &mut Parameter) -> Result<(), PatchError> {
        if self.model_strength != 1.0 {
            let m = self.model_strength as f32;
            w.values.iter_mut().for_each(|v| *v *= m);
        }
        let adapter = &*self.adapter;
        match &adapter.kind {
            AdapterKind::Set(value) => {
                adapter.same_shape(value, &w.shape)?;
                w.values = adapter.read(value)?;
                return Ok(());
            }
            AdapterKind::Diff(diff) => {
                if self.strength != 0.0 {
                    adapter.same_shape(diff, &w.shape)?;
                    let diff = adapter.read(diff)?;
                    self.add(w, diff, self.strength);
                }
                return Ok(());
            }
            AdapterKind::Parameter { weight, patches } => {
                if self.strength != 0.0 {
                    adapter.same_shape(weight, &w.shape)?;
                    let (values, shape) = apply_patches(adapter.read(weight)?, weight.dims(), patches)?;
                    if shape != w.shape {
                        return Err(adapter.misfit(&w.shape, format!("it is patched to the shape {shape:?}")));
                    }
                    self.add(w, values, self.strength);
                }
                return Ok(());
            }
            AdapterKind::Lora { reshape: Some(shape), .. } => grow(adapter, w, shape)?,
            // The common case in one pass over the weight.
            AdapterKind::Lora { up, down, mid: None, .. }
                if adapter.dora_scale.is_none() && !self.swap_halves =>
            {
                let (up, down) = (adapter.matrix(up)?, adapter.matrix(down)?);
                let factor = (self.strength * adapter.scale(down.rows)) as f32;
                return multiply_add(&mut w.values, &up, &down, factor)
                    .ok_or_else(|| adapter.misfit(&w.shape, product_of(&up, &down)));
            }
            _ => {}
        }
        let (delta, scale) = self.change(w)?;
        if delta.len() != w.values.len() {
            return Err(adapter.misfit(&w.shape, format!("it has {} values", delta.len())));
        }
        match &adapter.dora_scale {
            None => self.add(w, delta, self.strength * scale),
            Some(magnitudes) => {
                let magnitudes = adapter.read(magnitudes)?;
                let delta = self.swapped(delta);
                // Rotations have no rank: there the constant itself counts, and none is zero.
                let scale = match adapter.kind {
                    AdapterKind::Oft { .. } | AdapterKind::Boft { .. } => adapter.alpha.unwrap_or(0.0),
                    _ => scale,
                };
                if !decompose(w, &delta, &magnitudes, scale, self.strength) {
                    return Err(
                        adapter.misfit(&w.shape, format!("dora_scale has {} values", magnitudes.len()))
                    );
                }
            }
        }
        Ok(())
    }

    /// The change D in the weight's order, and the factor alpha / rank that goes with it.
    fn change(&self, w: &Parameter) -> Result<(Vec<f32>, f64), PatchError> {
        let adapter = &*self.adapter;
        match &adapter.kind {
            AdapterKind::Lora { up, down, mid, .. } => {
                let (up, down) = (adapter.matrix(up)?, adapter.matrix(down)?);
                let scale = adapter.scale(down.rows);
                let delta = match mid {
                    None => up.multiply(&down).map(|m| m.values),
                    Some(mid) => tucker(&adapter.tensor(mid)?, &up.transposed(), &down),
                };
                let delta = delta.ok_or_else(|| adapter.misfit(&w.shape, product_of(&up, &down)))?;
                Ok((delta, scale))
            }
            AdapterKind::Loha { factors, cores } => loha(adapter, w, factors, cores.as_ref()),
            AdapterKind::Lokr { w1, w2, core } => lokr(adapter, w, w1, w2, core.as_ref()),
            AdapterKind::Glora { factors } => glora(adapter, w, factors),
            AdapterKind::Oft { blocks } => oft(adapter, w, blocks, self.strength).map(|d| (d, 1.0)),
            AdapterKind::Boft { blocks, rescale } => {
                boft(adapter, w, blocks, rescale.as_ref(), self.strength).map(|d| (d, 1.0))
            }
            AdapterKind::Diff(value)
            | AdapterKind::Set(value)
            | AdapterKind::Parameter { weight: value, .. } => Ok((adapter.read(value)?, 1.0)),
        }
    }

    fn swapped(&self, mut delta: Vec<f32>) -> Vec<f32> {
        if self.swap_halves {
            let half = delta.len() / 2;
            delta.rotate_left(half);
        }
        delta
    }

    fn add(&self, w: &mut Parameter, delta: Vec<f32>, factor: f64) {
        let factor = factor as f32;
        for (v, d) in w.values.iter_mut().zip(self.swapped(delta)) {
            *v += factor * d;
        }
    }
}

fn product_of(a: &Matrix, b: &Matrix) -> String {
    format!("it is the product of {}x{} and {}x{}", a.rows, a.columns, b.rows, b.columns)
}

/// Zero-pads the weight at the end of every axis.
fn grow(adapter: &Adapter, w: &mut Parameter, shape: &[usize]) -> Result<(), PatchError> {
    // A shape from a file must not ask for more memory than the adapter could fill.
    let limit = match &adapter.kind {
        AdapterKind::Lora { up, down, .. } => (up.elem_count() as u128) * (down.elem_count() as u128),
        _ => 0,
    };
    let count = shape.iter().map(|&d| d as u128).product::<u128>();
    let grows = shape.len() == w.shape.len() && shape.iter().zip(&w.shape).all(|(new, old)| new >= old);
    if !grows || count > limit {
        return Err(adapter.misfit(&w.shape, format!("it asks for the shape {shape:?}")));
    }
    let (old_row, new_row) = (w.shape.last().copied().unwrap_or(1), shape.last().copied().unwrap_or(1));
    let mut values = vec![0f32; count as usize];
    for (index, row) in w.values.chunks_exact(old_row.max(1)).enumerate() {
        // The row's place in the old shape, axis by axis, gives its place in the new one.
        let (mut rest, mut place, mut stride) = (index, 0, 1);
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            place += rest % w.shape[axis] * stride;
            rest /= w.shape[axis];
            stride *= shape[axis];
        }
        values[place * new_row..place * new_row + old_row].copy_from_slice(row);
    }
    *w = Parameter { shape: shape.to_vec(), values };
    Ok(())
}

impl Adapter {
    /// alpha / rank, or 1 without alpha.
    pub(super) fn scale(&self, rank: usize) -> f64 {
        self.alpha.map_or(1.0, |alpha| alpha / rank.max(1) as f64)
    }

    pub(super) fn misfit(&self, shape: &[usize], detail: String) -> PatchError {
        PatchError::Shape {
            file: self.source.to_string(),
            module: self.module.clone(),
            shape: shape.to_vec(),
            detail,
        }
    }

    fn same_shape(&self, value: &Weight, shape: &[usize]) -> Result<(), PatchError> {
        let fits = value.dims() == shape;
        fits.then_some(()).ok_or_else(|| self.misfit(shape, format!("its shape is {:?}", value.dims())))
    }

    /// A tensor's values; NaN and infinity are refused here, where they would ruin a whole model silently.
    pub(super) fn read(&self, weight: &Weight) -> Result<Vec<f32>, PatchError> {
        let values = weight.to_f32();
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        Err(PatchError::NotFinite {
            file: self.source.to_string(),
            module: self.module.clone(),
            shape: weight.dims().to_vec(),
        })
    }

    pub(super) fn tensor(&self, weight: &Weight) -> Result<Parameter, PatchError> {
        Ok(Parameter { shape: weight.dims().to_vec(), values: self.read(weight)? })
    }

    /// A tensor flattened to two axes.
    pub(super) fn matrix(&self, weight: &Weight) -> Result<Matrix, PatchError> {
        let t = self.tensor(weight)?;
        Ok(Matrix { rows: t.rows(), columns: t.columns(), values: t.values })
    }
}
