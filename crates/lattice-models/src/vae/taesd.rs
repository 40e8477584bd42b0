//! TAESD, the tiny autoencoder (Bohan 2023): sequences of convolutions under bare indices.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_kernels::ops;
use lattice_weights::Scope;

use super::Vae;
use crate::error::Built;
use crate::layers::ScopeExt;

#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    Relu,
    /// Three convolutions around a skip.
    Block([Conv2d; 3]),
    /// Nearest-neighbour enlargement by 2.
    Upsample,
}

impl Layer {
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(&x),
            Self::Relu => x.relu(),
            Self::Block([a, b, c]) => {
                let h = a.forward(&x)?.relu()?;
                let h = b.forward(&h)?.relu()?;
                (c.forward(&h)? + x)?.relu()
            }
            Self::Upsample => ops::upsample_nearest(&x, x.dim(2)? * 2, x.dim(3)? * 2),
        }
    }
}

/// A 3x3 convolution, with a bias if the file has one.
fn conv(scope: &Scope<'_>, inputs: usize, stride: usize) -> Built<Conv2d> {
    let outputs = scope.shape("weight", 4)?[0];
    let weight = scope.tensor("weight", &[outputs, inputs, 3, 3])?;
    let bias = if scope.has("bias") { Some(scope.tensor("bias", &[outputs])?) } else { None };
    Ok(Conv2d::new(weight, bias, Conv2dConfig::padded(1).stride(stride))?)
}

/// Layers of a half. Convolutions without a bias change the resolution: in the encoder by a stride, in the decoder after
/// an enlargement.
fn layers(scope: &Scope<'_>, inputs: usize, decoder: bool) -> Built<(Vec<Layer>, usize)> {
    let (mut layers, mut channels, mut started) = (vec![], inputs, false);
    // Indices without tensors stand for activations and enlargements; the published halves end before this one.
    const LAST_INDEX: usize = 64;
    for i in 0..LAST_INDEX {
        let entry = scope.at(i);
        if entry.has("conv.0.weight") {
            let convs = entry.at("conv");
            let part = |i: usize| conv(&convs.at(i), channels, 1);
            layers.push(Layer::Block([part(0)?, part(2)?, part(4)?]));
        } else if entry.has("weight") {
            let resizes = !entry.has("bias");
            if resizes && decoder {
                layers.push(Layer::Upsample);
            }
            let c = conv(&entry, channels, if resizes && !decoder { 2 } else { 1 })?;
            channels = c.out_channels();
            layers.push(Layer::Conv(c));
            if decoder && !started {
                layers.push(Layer::Relu);
            }
            started = true;
        }
    }
    Ok((layers, channels))
}

/// The tiny autoencoder; either half may be missing.
#[derive(Debug)]
pub struct Taesd {
    encoder: Option<Vec<Layer>>,
    decoder: Option<Vec<Layer>>,
    latent_channels: usize,
    scale: f64,
    shift: f64,
}

impl Taesd {
    /// From the scopes of the halves. `scale` and `shift` are those of the latent format it stands in for: it works on
    /// the network's scale.
    pub fn new(
        encoder: Option<&Scope<'_>>,
        decoder: Option<&Scope<'_>>,
        scale: f64,
        shift: f64,
    ) -> Built<Self> {
        let decoder = match decoder {
            Some(scope) => {
                let channels = scope.shape("1.weight", 4)?[1];
                Some((layers(scope, channels, true)?.0, channels))
            }
            None => None,
        };
        let encoder = match encoder {
            Some(scope) => Some(layers(scope, scope.shape("0.weight", 4)?[1], false)?),
            None => None,
        };
        let latent_channels =
            decoder.as_ref().map(|d| d.1).or(encoder.as_ref().map(|e| e.1)).unwrap_or_default();
        Ok(Self {
            encoder: encoder.map(|e| e.0),
            decoder: decoder.map(|d| d.0),
            latent_channels,
            scale,
            shift,
        })
    }
}

impl Vae for Taesd {
    fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    fn spatial_factor(&self) -> usize {
        8
    }

    fn encode_mean(&self, image: &Tensor) -> Result<Tensor> {
        let Some(encoder) = &self.encoder else { bail!("this file holds no TAESD encoder") };
        let mut h = image.affine(0.5, 0.5)?;
        for layer in encoder {
            h = layer.forward(h)?;
        }
        h.affine(1.0 / self.scale, self.shift)
    }

    fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        let Some(decoder) = &self.decoder else { bail!("this file holds no TAESD decoder") };
        if latent.dims4()?.1 != self.latent_channels {
            bail!(
                "a latent of shape {:?} cannot be decoded: this TAESD has {} channels",
                latent.dims(),
                self.latent_channels
            )
        }
        let mut h = latent.affine(self.scale, -self.shift * self.scale)?;
        // Softly limits outliers.
        h = ((h / 3.0)?.tanh()? * 3.0)?;
        for layer in decoder {
            h = layer.forward(h)?;
        }
        h.affine(2.0, -1.0)
    }
}
