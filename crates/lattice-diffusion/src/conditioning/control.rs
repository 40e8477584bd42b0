//! Control networks applied to an entry: with a picture, a strength, for a part of the sampling, one after another.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};
use lattice_media::resize::{Crop, Method, common_upscale};
use lattice_models::control::{ControlNetwork, LatentHint, ReadHint};
use lattice_models::network::{Control, NetworkInput};

use super::repeat_batch;
use crate::ModelSampling;
use crate::model::WeightHooks;

/// A call of the base network, as controls see it.
#[derive(Clone, Copy)]
pub struct ControlCall<'a> {
    /// Inputs of the base network: `x` without joined channels, the text that is meant for control networks.
    pub input: &'a NetworkInput,
    /// Noise level.
    pub sigma: f64,
    /// Noise levels of the model.
    pub sampling: &'a ModelSampling,
    /// How many entries share the call: its batch is as many times the latent's.
    pub entries: usize,
    /// Weights of the base network, for controls that are made of them.
    pub weights: Option<&'a Arc<dyn WeightHooks>>,
}

/// Yields residuals for the base network.
pub trait ControlSource: Send + Sync + std::fmt::Debug {
    /// Residuals for a call; None where it does not apply.
    ///
    /// # Errors
    /// If the hint does not fit the latent, or the control network fails.
    fn residuals(&self, call: &ControlCall<'_>) -> Result<Option<Control>>;
}

/// What controls an entry.
#[derive(Clone, Debug)]
pub struct ControlHint {
    /// The network.
    pub source: Arc<dyn ControlSource>,
    /// Whether the other lists get it as well.
    pub apply_to_uncond: bool,
}

/// Encodes pictures for control networks that read latents.
pub trait HintEncoder: Send + Sync {
    /// Pixels per cell.
    fn spatial_factor(&self) -> usize;

    /// The latent [B, C, h, w] of planes [B, 3, H, W] in 0..1, in the VAE's scale.
    ///
    /// # Errors
    /// If the VAE has no encoder.
    fn encode(&self, planes: &Tensor) -> Result<Tensor>;
}

/// A control network with its picture.
pub struct AppliedControl {
    /// The network.
    network: Arc<ControlNetwork>,
    /// The picture, planes [n, 3, H, W] in 0..1.
    picture: Tensor,
    strength: f64,
    /// Shares of the sampling between which it applies.
    range: (f64, f64),
    /// What controls the entry besides.
    previous: Option<Arc<dyn ControlSource>>,
    /// Kinds of hint, for networks that tell them apart.
    kinds: Arc<[usize]>,
    encoder: Option<Arc<dyn HintEncoder>>,
    /// Where to paint, [n, 1, H, W], for networks that read it.
    mask: Option<Tensor>,
    state: Mutex<State>,
}

/// What is the same at every step.
#[derive(Default)]
struct State {
    /// The network over the weights of the one that it is used on, where it needs them.
    placed: Option<(Arc<dyn WeightHooks>, Arc<ControlNetwork>)>,
    /// What the network read of the picture at the latent's (rows, columns).
    read: Option<((usize, usize), ReadHint)>,
}

impl std::fmt::Debug for AppliedControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppliedControl")
            .field("strength", &self.strength)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl AppliedControl {
    /// `network` with the picture [n, 3, H, W] in 0..1, of any size. `range` is where in the sampling it applies, 0 the
    /// start. Its residuals are added to those of `previous`.
    pub fn new(
        network: Arc<ControlNetwork>,
        picture: Tensor,
        strength: f64,
        range: (f64, f64),
        previous: Option<Arc<dyn ControlSource>>,
    ) -> Self {
        Self {
            network,
            picture,
            strength,
            range,
            previous,
            kinds: [].into(),
            encoder: None,
            mask: None,
            state: Mutex::default(),
        }
    }

    /// With what kind of hint the picture is.
    #[must_use]
    pub fn with_kinds(self, kinds: Arc<[usize]>) -> Self {
        Self { kinds, ..self }
    }

    /// With what makes latents of pictures.
    #[must_use]
    pub fn with_encoder(self, encoder: Option<Arc<dyn HintEncoder>>) -> Self {
        Self { encoder, ..self }
    }

    /// With a mask [n, 1, H, W] of any size that is joined to the hint.
    #[must_use]
    pub fn with_mask(self, mask: Option<Tensor>) -> Self {
        Self { mask, ..self }
    }

    /// Whether it applies at a noise level. In single precision, like the levels of a schedule.
    fn is_active(&self, sampling: &ModelSampling, sigma: f64) -> bool {
        let level = |share: f64| sampling.percent_to_sigma(share) as f32;
        let sigma = sigma as f32;
        sigma <= level(self.range.0) && sigma >= level(self.range.1)
    }

    /// The network for a call.
    fn network(&self, call: &ControlCall<'_>, state: &mut State) -> Result<Arc<ControlNetwork>> {
        if !matches!(*self.network, ControlNetwork::WithoutBase(_)) {
            return Ok(self.network.clone());
        }
        let Some(weights) = call.weights else {
            candle_core::bail!("this control network needs the weights of the model that it is used on")
        };
        if let Some((of, placed)) = &state.placed
            && Arc::ptr_eq(of, weights)
        {
            return Ok(placed.clone());
        }
        let network = weights.control_network(&self.network)?.map_or_else(|| self.network.clone(), Arc::new);
        *state = State { placed: Some((weights.clone(), network.clone())), read: None };
        Ok(network)
    }

    /// What a network reads of the picture at the size of a latent.
    fn read(&self, network: &ControlNetwork, cells: (usize, usize)) -> Result<ReadHint> {
        let resized = |t: &Tensor, (height, width): (usize, usize)| {
            common_upscale(t, width, height, Method::NearestExact, Crop::Center)
        };
        let Some(LatentHint { scale, shift, .. }) = network.latent_hint() else {
            let picture = resized(&self.picture, network.hint_size(cells))?;
            return network.read_hint(&network.prepared(&picture)?, &self.kinds);
        };
        let Some(encoder) = &self.encoder else {
            candle_core::bail!("this ControlNet reads latents: connect a VAE to the node that applies it")
        };
        let factor = encoder.spatial_factor();
        let picture = resized(&self.picture, (cells.0 * factor, cells.1 * factor))?;
        let latent = encoder.encode(&network.prepared(&picture)?)?;
        let mut hint = ((latent - shift)? * scale)?;
        if let Some(mask) = &self.mask {
            let mask = repeat_batch(&resized(mask, cells)?, hint.dim(0)?)?;
            hint = Tensor::cat(&[hint, mask.to_dtype(candle_core::DType::F32)?], 1)?;
        }
        network.read_hint(&hint, &self.kinds)
    }

    fn own(&self, call: &ControlCall<'_>) -> Result<Control> {
        let (rows, _, height, width) = call.input.x.dims4()?;
        let entries = call.entries.max(1);
        let cells = (height, width);
        let (network, read) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let network = self.network(call, &mut state)?;
            let read = match &state.read {
                Some((size, read)) if *size == cells => read.clone(),
                _ => self.read(&network, cells)?,
            };
            state.read = Some((cells, read.clone()));
            (network, read)
        };
        // Pictures follow the items of the latent, in every entry of the call.
        let read = read.map(|t| {
            let own = repeat_batch(t, rows / entries)?;
            if entries == 1 { Ok(own) } else { Tensor::cat(&vec![own; entries], 0) }
        })?;
        network.residuals(call.input, &read, &self.kinds)?.map(|residual| residual * self.strength)
    }
}

impl ControlSource for AppliedControl {
    fn residuals(&self, call: &ControlCall<'_>) -> Result<Option<Control>> {
        let previous = self.previous.as_ref().map(|previous| previous.residuals(call)).transpose()?.flatten();
        if !self.is_active(call.sampling, call.sigma) {
            return Ok(previous);
        }
        let own = self.own(call)?;
        Ok(Some(match previous {
            Some(previous) => own.merged(&previous)?,
            None => own,
        }))
    }
}
