//! Networks over patched weights. The weights are computed when a network first runs: of a chain of patches only the end
//! is ever computed.

use std::sync::Arc;

use candle_core::{Error, Result, Tensor};
use lattice_kernels::on_pool;
use lattice_models::detect::{DiffusionPart, TextPart};
use lattice_models::{
    DiffusionNetwork, ForwardOptions, NetworkInput, TextEncoder, TextInput, TextOptions, TextOutput,
};
use lattice_weights::StateDict;
use lattice_weights::patcher::PatchedWeights;
use parking_lot::Mutex;

/// A value that is made on first use; unlike a `OnceLock` its making may fail.
struct OnDemand<T>(Mutex<Option<T>>);

impl<T: Clone> OnDemand<T> {
    /// Of a value that is there already, or not yet.
    const fn new(value: Option<T>) -> Self {
        Self(Mutex::new(value))
    }

    fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut slot = self.0.lock();
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = make()?;
        *slot = Some(value.clone());
        Ok(value)
    }
}

/// The network of a patched diffusion model; that of the file itself where nothing is patched.
pub(super) fn diffusion_network(
    part: &Arc<DiffusionPart>,
    patched: &PatchedWeights,
) -> Arc<dyn DiffusionNetwork> {
    let network = OnDemand::new(patched.is_plain().then(|| part.network.clone()));
    Arc::new(PlacedNetwork { part: part.clone(), patched: patched.clone(), network })
}

struct PlacedNetwork {
    part: Arc<DiffusionPart>,
    patched: PatchedWeights,
    network: OnDemand<Arc<dyn DiffusionNetwork>>,
}

impl DiffusionNetwork for PlacedNetwork {
    fn forward(&self, input: &NetworkInput, options: &ForwardOptions) -> Result<Tensor> {
        let network = self.network.get(|| {
            let weights = self.patched.weights().map_err(Error::wrap)?;
            Ok(self.part.with_weights(weights).map_err(Error::wrap)?.network)
        })?;
        let output = on_pool(|| network.forward(input, options))?;
        if !is_finite(&output)? && is_finite(&input.x)? {
            blame(self.patched.base())?;
        }
        Ok(output)
    }
}

/// The same for a text encoder.
pub(super) fn text_encoder(part: &TextPart, patched: &PatchedWeights) -> Arc<dyn TextEncoder> {
    let encoder = OnDemand::new(patched.is_plain().then(|| part.encoder.clone()));
    Arc::new(PlacedEncoder { part: part.clone(), patched: patched.clone(), encoder })
}

struct PlacedEncoder {
    /// As it is in the file.
    part: TextPart,
    patched: PatchedWeights,
    encoder: OnDemand<Arc<dyn TextEncoder>>,
}

impl TextEncoder for PlacedEncoder {
    fn width(&self) -> usize {
        self.part.encoder.width()
    }

    fn embedding_width(&self) -> usize {
        self.part.encoder.embedding_width()
    }

    fn encode(&self, input: &TextInput, options: TextOptions) -> Result<TextOutput> {
        let encoder = self.encoder.get(|| {
            let weights = self.patched.weights().map_err(Error::wrap)?;
            Ok(self.part.with_weights(weights).map_err(Error::wrap)?.encoder)
        })?;
        let output = on_pool(|| encoder.encode(input, options))?;
        if !is_finite(&output.states)? {
            blame(self.patched.base())?;
        }
        Ok(output)
    }
}

/// Whether no value is NaN or infinite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    // NaN and infinity stay what they are in a sum of products with zero.
    let zero = (tensor.to_dtype(candle_core::DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(zero == 0.0)
}

/// The error of weights that are no numbers, if any is not: a result without numbers would be a black picture and no word why.
pub(super) fn blame(weights: &StateDict) -> Result<()> {
    match weights.first_not_finite() {
        Some(name) => {
            candle_core::bail!("{}: tensor `{name}` holds values that are not finite", weights.source())
        }
        None => Ok(()),
    }
}
