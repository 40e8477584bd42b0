//! Control networks applied to an entry: with a picture, a strength, for a part of the sampling, one after another.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};
use lattice_media::resize::{Crop, Method, common_upscale};
use lattice_models::control::{ControlNetwork, ReadHint};
use lattice_models::network::{Control, NetworkInput};

use super::repeat_batch;
use crate::ModelSampling;

/// A call of the base network, as controls see it.
#[derive(Clone, Copy, Debug)]
pub struct ControlCall<'a> {
    /// Inputs of the base network: `x` without joined channels, the text that is meant for control networks.
    pub input: &'a NetworkInput,
    /// Noise level.
    pub sigma: f64,
    /// Noise levels of the model.
    pub sampling: &'a ModelSampling,
    /// How many entries share the call: its batch is as many times the latent's.
    pub entries: usize,
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

/// A control network with its picture.
#[derive(Debug)]
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
    /// What the network read of the picture at the latent's (rows, columns).
    read: Mutex<Option<((usize, usize), ReadHint)>>,
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
        Self { network, picture, strength, range, previous, read: Mutex::new(None) }
    }

    /// Whether it applies at a noise level. In single precision, like the levels of a schedule.
    fn is_active(&self, sampling: &ModelSampling, sigma: f64) -> bool {
        let level = |share: f64| sampling.percent_to_sigma(share) as f32;
        let sigma = sigma as f32;
        sigma <= level(self.range.0) && sigma >= level(self.range.1)
    }

    /// What the network reads of the picture at the size of a latent. The same at every step, so it is kept.
    fn read(&self, cells: (usize, usize)) -> Result<ReadHint> {
        let mut kept = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, read)) = &*kept
            && *size == cells
        {
            return Ok(read.clone());
        }
        let (height, width) = self.network.hint_size(cells);
        let picture = common_upscale(&self.picture, width, height, Method::NearestExact, Crop::Center)?;
        let read = self.network.read_hint(&picture)?;
        *kept = Some((cells, read.clone()));
        Ok(read)
    }

    fn own(&self, call: &ControlCall<'_>) -> Result<Control> {
        let (rows, _, height, width) = call.input.x.dims4()?;
        let entries = call.entries.max(1);
        let read = self.read((height, width))?;
        // Pictures follow the items of the latent, in every entry of the call.
        let read = read.map(|t| {
            let own = repeat_batch(t, rows / entries)?;
            if entries == 1 { Ok(own) } else { Tensor::cat(&vec![own; entries], 0) }
        })?;
        self.network.residuals(call.input, &read)?.map(|residual| residual * self.strength)
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
