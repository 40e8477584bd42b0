//! The 2-D KL autoencoder of latent diffusion (Rombach et al. 2022), with 4 or 16 latent channels.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use lattice_kernels::{ops, release_freed_memory};
use lattice_weights::Scope;

use super::Vae;
use crate::ModelError;
use crate::error::Built;
use crate::layers::ScopeExt;

const EPS: f64 = 1e-6;

/// What the tensors tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KlConfig {
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of a picture.
    pub image_channels: usize,
    /// Resolution levels; each but one halves the picture.
    pub levels: usize,
}

#[derive(Debug)]
struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    fn new(scope: &Scope<'_>, inputs: usize) -> Built<Self> {
        let outputs = scope.shape("conv1.weight", 4)?[0];
        let shortcut = scope.at("nin_shortcut");
        Ok(Self {
            norm1: scope.at("norm1").group_norm(inputs, 32, EPS)?,
            conv1: conv3(&scope.at("conv1"), inputs, outputs)?,
            norm2: scope.at("norm2").group_norm(outputs, 32, EPS)?,
            conv2: conv3(&scope.at("conv2"), outputs, outputs)?,
            nin_shortcut: if inputs == outputs {
                None
            } else {
                Some(shortcut.conv2d(inputs, outputs, 1, Conv2dConfig::padded(0))?)
            },
        })
    }

    fn out_channels(&self) -> usize {
        self.conv2.out_channels()
    }

    /// The block of x, in whose memory a part of it may be computed.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        // At full resolution each of these is a hundred megabytes and more, so none outlives its use.
        let (skip, mut h) = match &self.nin_shortcut {
            Some(shortcut) => (shortcut.forward(&x)?, self.norm1.forward_silu_in_place(x)?),
            None => (x.clone(), self.norm1.forward_silu(&x)?),
        };
        h = self.conv1.forward(&h)?;
        h = self.norm2.forward_silu_in_place(h)?;
        h = self.conv2.forward(&h)?;
        ops::add_to(h, &skip)
    }
}

/// Self-attention with one head over all cells.
#[derive(Debug)]
struct AttnBlock {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    proj_out: Linear,
    scale: f32,
}

impl AttnBlock {
    fn new(scope: &Scope<'_>, channels: usize) -> Built<Self> {
        let layer = |name| scope.at(name).pointwise(channels, channels);
        Ok(Self {
            norm: scope.at("norm").group_norm(channels, 32, EPS)?,
            q: layer("q")?,
            k: layer("k")?,
            v: layer("v")?,
            proj_out: layer("proj_out")?,
            scale: 1.0 / (channels as f32).sqrt(),
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let h = ops::to_tokens(&self.norm.forward(&x)?)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        drop(h);
        let h = ops::attention(&q, &k, &v, 1, self.scale, None, false)?;
        ops::add_tokens(&x, &self.proj_out.forward(&h)?)
    }
}

/// Residual block, attention, residual block.
#[derive(Debug)]
struct Mid {
    block_1: ResnetBlock,
    attn_1: AttnBlock,
    block_2: ResnetBlock,
}

impl Mid {
    fn new(scope: &Scope<'_>, channels: usize) -> Built<Self> {
        let block_1 = ResnetBlock::new(&scope.at("block_1"), channels)?;
        let attn_1 = AttnBlock::new(&scope.at("attn_1"), block_1.out_channels())?;
        let block_2 = ResnetBlock::new(&scope.at("block_2"), block_1.out_channels())?;
        Ok(Self { block_1, attn_1, block_2 })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        self.block_2.forward(self.attn_1.forward(self.block_1.forward(x)?)?)
    }
}

/// The residual blocks of a resolution, and the convolution to the next.
#[derive(Debug)]
struct Level {
    block: Vec<ResnetBlock>,
    resample: Option<Conv2d>,
}

impl Level {
    /// The level below `scope`; also its output channels.
    fn new(scope: &Scope<'_>, resample: &str, config: Conv2dConfig, channels: usize) -> Built<(Self, usize)> {
        let (blocks, mut channels) = (scope.at("block"), channels);
        let mut block = Vec::new();
        for i in 0..blocks.count() {
            let b = ResnetBlock::new(&blocks.at(i), channels)?;
            channels = b.out_channels();
            block.push(b);
        }
        let conv = scope.at(resample).at("conv");
        let resample =
            if conv.has("weight") { Some(conv.conv2d(channels, channels, 3, config)?) } else { None };
        Ok((Self { block, resample }, channels))
    }
}

fn conv3(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Built<Conv2d> {
    scope.conv2d(inputs, outputs, 3, Conv2dConfig::padded(1))
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down: Vec<Level>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(scope: &Scope<'_>, image_channels: usize) -> Built<Self> {
        let mut channels = scope.shape("conv_in.weight", 4)?[0];
        let conv_in = conv3(&scope.at("conv_in"), image_channels, channels)?;
        let levels = scope.at("down");
        let mut down = Vec::new();
        // One row and one column of zeros at the bottom and right, then stride 2.
        let strided = Conv2dConfig { padding: [0, 1, 0, 1], ..Conv2dConfig::padded(0).stride(2) };
        for i in 0..levels.count() {
            let (level, outputs) = Level::new(&levels.at(i), "downsample", strided, channels)?;
            channels = outputs;
            down.push(level);
        }
        let moments = scope.shape("conv_out.weight", 4)?[0];
        Ok(Self {
            conv_in,
            down,
            mid: Mid::new(&scope.at("mid"), channels)?,
            norm_out: scope.at("norm_out").group_norm(channels, 32, EPS)?,
            conv_out: conv3(&scope.at("conv_out"), channels, moments)?,
        })
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let mut h = self.conv_in.forward(image)?;
        for level in &self.down {
            for block in &level.block {
                h = block.forward(h)?;
            }
            if let Some(conv) = &level.resample {
                h = conv.forward(&h)?;
            }
        }
        h = self.mid.forward(h)?;
        h = self.norm_out.forward_silu_in_place(h)?;
        self.conv_out.forward(&h)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    /// By level, 0 being the full resolution; they run from the last to the first.
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(scope: &Scope<'_>, latent_channels: usize) -> Built<Self> {
        let mut channels = scope.shape("conv_in.weight", 4)?[0];
        let conv_in = conv3(&scope.at("conv_in"), latent_channels, channels)?;
        let mid = Mid::new(&scope.at("mid"), channels)?;
        let levels = scope.at("up");
        let mut up = Vec::new();
        for i in (0..levels.count()).rev() {
            let (level, outputs) = Level::new(&levels.at(i), "upsample", Conv2dConfig::padded(1), channels)?;
            channels = outputs;
            up.push(level);
        }
        up.reverse();
        let image_channels = scope.shape("conv_out.weight", 4)?[0];
        Ok(Self {
            conv_in,
            mid,
            up,
            norm_out: scope.at("norm_out").group_norm(channels, 32, EPS)?,
            conv_out: conv3(&scope.at("conv_out"), channels, image_channels)?,
        })
    }

    fn forward(&self, latent: &Tensor) -> Result<Tensor> {
        let mut h = self.mid.forward(self.conv_in.forward(latent)?)?;
        let last = self.up.len().saturating_sub(2);
        for (n, level) in self.up.iter().rev().enumerate() {
            for block in &level.block {
                h = block.forward(h)?;
            }
            // The last enlargement makes the largest results: what was freed before is no use to them, nor its own to the last level.
            if n == last {
                release_freed_memory();
            }
            if let Some(conv) = &level.resample {
                let (height, width) = (h.dim(2)? * 2, h.dim(3)? * 2);
                h = ops::upsample_nearest(&h, height, width)?;
                h = conv.forward(&h)?;
                if n == last {
                    release_freed_memory();
                }
            }
        }
        h = self.norm_out.forward_silu_in_place(h)?;
        self.conv_out.forward(&h)
    }
}

/// The autoencoder; either half may be missing from a file.
#[derive(Debug)]
pub struct AutoencoderKl {
    config: KlConfig,
    encoder: Option<Encoder>,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Option<Decoder>,
}

impl AutoencoderKl {
    /// Builds the autoencoder whose tensors stand below `scope`.
    pub fn new(scope: &Scope<'_>) -> Built<Self> {
        let pointwise = |name: &str| -> Built<Option<Conv2d>> {
            let conv = scope.at(name);
            if !conv.has("weight") {
                return Ok(None);
            }
            let shape = conv.shape("weight", 4)?;
            Ok(Some(conv.conv2d(shape[1], shape[0], 1, Conv2dConfig::padded(0))?))
        };
        let (enc, dec) = (scope.at("encoder"), scope.at("decoder"));
        let quant_conv = pointwise("quant_conv")?;
        let post_quant_conv = pointwise("post_quant_conv")?;

        let decoder = if dec.has("conv_in.weight") {
            let channels = dec.shape("conv_in.weight", 4)?[1];
            if let Some(conv) = &post_quant_conv {
                scope.tensor("post_quant_conv.weight", &[channels, conv.in_channels(), 1, 1])?;
            }
            Some(Decoder::new(&dec, channels)?)
        } else {
            None
        };
        let encoder = if enc.has("conv_in.weight") {
            let encoder = Encoder::new(&enc, enc.shape("conv_in.weight", 4)?[1])?;
            if let Some(conv) = &quant_conv {
                let moments = encoder.conv_out.out_channels();
                scope.tensor("quant_conv.weight", &[conv.out_channels(), moments, 1, 1])?;
            }
            Some(encoder)
        } else {
            None
        };
        // With quant convolutions the latent lies outside them.
        let decoder_side = decoder.as_ref().map(|d| match &post_quant_conv {
            Some(conv) => conv.in_channels(),
            None => d.conv_in.in_channels(),
        });
        let encoder_side = encoder.as_ref().map(|e| match &quant_conv {
            Some(conv) => conv.out_channels() / 2,
            None => e.conv_out.out_channels() / 2,
        });
        let latent_channels = match (decoder_side, encoder_side) {
            (Some(d), Some(e)) if d != e => {
                return Err(
                    scope.invalid(format!("the encoder makes {e} latent channels, the decoder takes {d}"))
                );
            }
            (Some(c), _) | (None, Some(c)) => c,
            (None, None) => {
                // Names the tensor that is looked for first.
                return Err(dec
                    .weight("conv_in.weight")
                    .err()
                    .map_or_else(|| scope.invalid("neither an encoder nor a decoder"), ModelError::from));
            }
        };
        let levels = decoder.as_ref().map(|d| d.up.len());
        let levels = levels.or(encoder.as_ref().map(|e| e.down.len())).unwrap_or(0).max(1);
        let image_channels = decoder.as_ref().map(|d| d.conv_out.out_channels());
        let image_channels =
            image_channels.or(encoder.as_ref().map(|e| e.conv_in.in_channels())).unwrap_or(3);
        let config = KlConfig { latent_channels, image_channels, levels };
        Ok(Self { config, encoder, quant_conv, post_quant_conv, decoder })
    }

    /// The structure.
    pub fn config(&self) -> &KlConfig {
        &self.config
    }
}

impl Vae for AutoencoderKl {
    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn spatial_factor(&self) -> usize {
        1 << (self.config.levels - 1)
    }

    fn encode_mean(&self, image: &Tensor) -> Result<Tensor> {
        let Some(encoder) = &self.encoder else { bail!("this file holds no VAE encoder") };
        let (_, channels, height, width) = image.dims4()?;
        let factor = self.spatial_factor();
        if channels != self.config.image_channels
            || height == 0
            || width == 0
            || !height.is_multiple_of(factor)
            || !width.is_multiple_of(factor)
        {
            bail!(
                "a picture of shape {:?} cannot be encoded: {} channels and multiples of {factor} are needed",
                image.dims(),
                self.config.image_channels
            )
        }
        let mut moments = encoder.forward(image)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        moments.narrow(1, 0, self.config.latent_channels)?.contiguous()
    }

    fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        let Some(decoder) = &self.decoder else { bail!("this file holds no VAE decoder") };
        let (_, channels, height, width) = latent.dims4()?;
        if channels != self.config.latent_channels || height == 0 || width == 0 {
            bail!(
                "a latent of shape {:?} cannot be decoded: this VAE has {} channels",
                latent.dims(),
                self.config.latent_channels
            )
        }
        match &self.post_quant_conv {
            Some(conv) => decoder.forward(&conv.forward(latent)?),
            None => decoder.forward(latent),
        }
    }
}
