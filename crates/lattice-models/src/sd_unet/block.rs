//! The entries of `input_blocks`, `middle_block` and `output_blocks`: short sequences of layers.

use candle_core::{Result, Tensor};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_kernels::ops;
use lattice_weights::Scope;

use super::config::UnetConfig;
use super::gligen::Grounding;
use super::place::Place;
use super::resnet::ResBlock;
use super::transformer::SpatialTransformer;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::options::{ForwardOptions, MiddleAttention};

#[derive(Debug)]
enum Layer {
    /// The first convolution of the network.
    Conv(Conv2d),
    Res(Box<ResBlock>),
    Transformer(Box<SpatialTransformer>),
    /// 3x3 convolution of stride 2.
    Downsample(Conv2d),
    /// Nearest-neighbour enlargement, then a 3x3 convolution.
    Upsample(Conv2d),
}

/// A sequence of layers.
#[derive(Debug)]
pub(super) struct Block(Vec<Layer>);

/// What layers read besides the feature map.
pub(super) struct Condition<'a> {
    /// Time (and added) embedding after SiLU, [B, E].
    pub(super) emb: &'a Tensor,
    /// Text states, [B, tokens, width].
    pub(super) context: Option<&'a Tensor>,
    /// Rows and columns of the latent.
    pub(super) latent: (usize, usize),
    /// What random choices depend on.
    pub(super) seed: u64,
    /// Changes that are asked for.
    pub(super) options: &'a ForwardOptions,
    /// How transformers attend to themselves.
    pub(super) attention: &'a MiddleAttention,
    /// Texts in boxes.
    pub(super) grounding: Option<&'a Grounding>,
}

impl Block {
    /// The layers that stand below `scope` for `channels` input channels; also the number of output channels.
    pub(super) fn new(
        scope: &Scope<'_>,
        channels: usize,
        emb_width: usize,
        config: &UnetConfig,
    ) -> Built<(Self, usize)> {
        let mut channels = channels;
        let mut layers = Vec::new();
        for i in 0..scope.count() {
            let child = scope.at(i);
            if child.has("in_layers.0.weight") {
                let block = ResBlock::new(&child, channels, emb_width)?;
                channels = block.out_channels();
                layers.push(Layer::Res(Box::new(block)));
            } else if child.has("proj_in.weight") {
                let transformer = SpatialTransformer::new(&child, channels, config)?;
                layers.push(Layer::Transformer(Box::new(transformer)));
            } else if child.has("op.weight") {
                let outputs = child.shape("op.weight", 4)?[0];
                let strided = Conv2dConfig::padded(1).stride(2);
                layers.push(Layer::Downsample(child.at("op").conv2d(channels, outputs, 3, strided)?));
                channels = outputs;
            } else if child.has("conv.weight") {
                let outputs = child.shape("conv.weight", 4)?[0];
                let conv = child.at("conv").conv2d(channels, outputs, 3, Conv2dConfig::padded(1))?;
                layers.push(Layer::Upsample(conv));
                channels = outputs;
            } else {
                let outputs = child.shape("weight", 4)?[0];
                layers.push(Layer::Conv(child.conv2d(channels, outputs, 3, Conv2dConfig::padded(1))?));
                channels = outputs;
            }
        }
        Ok((Self(layers), channels))
    }

    /// Numbers its transformer blocks from `next` on, by which what is added to them finds its place.
    pub(super) fn number(&mut self, next: &mut usize) {
        for layer in &mut self.0 {
            if let Layer::Transformer(transformer) = layer {
                transformer.number(next);
            }
        }
    }

    /// Runs the layers. `size` is the height and width that an enlargement makes: that of the next skip, so that odd sizes
    /// come back to themselves.
    pub(super) fn forward(
        &self,
        x: Tensor,
        condition: &Condition<'_>,
        size: Option<(usize, usize)>,
    ) -> Result<Tensor> {
        let mut h = x;
        for layer in &self.0 {
            h = match layer {
                Layer::Conv(conv) | Layer::Downsample(conv) => conv.forward(&h)?,
                Layer::Res(block) => block.forward(&h, condition.emb)?,
                Layer::Transformer(transformer) => match condition.context {
                    Some(context) => {
                        let place = Place {
                            height: h.dim(2)?,
                            width: h.dim(3)?,
                            latent: condition.latent,
                            seed: condition.seed,
                            options: condition.options,
                            grounding: condition.grounding,
                        };
                        transformer.forward(&h, context, &place, condition.attention)?
                    }
                    None => candle_core::bail!("this network needs encoded text"),
                },
                Layer::Upsample(conv) => {
                    let (height, width) = match size {
                        Some(size) => size,
                        None => (h.dim(2)? * 2, h.dim(3)? * 2),
                    };
                    conv.forward(&ops::upsample_nearest(&h, height, width)?)?
                }
            };
        }
        Ok(h)
    }
}
