//! T2I-Adapter (Mou et al. 2023): features of a hint picture, added to the U-Net on its way down.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_weights::{Scope, StateDict};

use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;
use crate::network::Control;
use crate::shuffle::pixel_unshuffle;

/// Feature sizes, each made by as many residual blocks.
const LEVELS: usize = 4;

/// A convolution of any odd kernel that keeps the size.
fn conv(scope: &Scope<'_>, inputs: usize) -> Built<Conv2d> {
    let shape = scope.shape("weight", 4)?;
    scope.conv2d(inputs, shape[0], shape[2], Conv2dConfig::padded(shape[2] / 2))
}

/// Convolution, ReLU, convolution, added back.
#[derive(Debug)]
struct ResBlock {
    in_conv: Option<Conv2d>,
    block1: Conv2d,
    block2: Conv2d,
}

impl ResBlock {
    fn new(scope: &Scope<'_>, inputs: usize) -> Built<Self> {
        let entry = scope.at("in_conv");
        let in_conv = if entry.has("weight") { Some(conv(&entry, inputs)?) } else { None };
        let channels = in_conv.as_ref().map_or(inputs, Conv2d::out_channels);
        let block1 = conv(&scope.at("block1"), channels)?;
        let block2 = conv(&scope.at("block2"), block1.out_channels())?;
        if block2.out_channels() != channels {
            let name = scope.full_name("block2.weight");
            return Err(scope.invalid(format!("`{name}` changes the width, which a residual cannot")));
        }
        Ok(Self { in_conv, block1, block2 })
    }

    fn channels(&self) -> usize {
        self.block2.out_channels()
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = match &self.in_conv {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        let h = self.block1.forward(&x)?.relu()?;
        self.block2.forward(&h)? + x
    }
}

/// What makes the features of one size.
#[derive(Debug)]
struct Level {
    in_conv: Option<Conv2d>,
    blocks: Vec<ResBlock>,
    out_conv: Option<Conv2d>,
    /// Whether the features are halved first.
    down: bool,
}

/// Averages squares of 2 by 2 cells; a last odd row or column counts as repeated.
fn halve(x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for axis in [2, 3] {
        let size = x.dim(axis)?;
        if size % 2 == 1 {
            x = Tensor::cat(&[&x, &x.narrow(axis, size - 1, 1)?], axis)?;
        }
    }
    x.avg_pool2d(2)
}

/// The U-Net an adapter is for, which decides where features are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum T2iTarget {
    /// Stable Diffusion 1.x: after input blocks 2, 5, 8 and 11.
    Sd1,
    /// SDXL: after input blocks 3, 5, 8 and the middle block.
    Sdxl,
}

/// A T2I-Adapter.
#[derive(Debug)]
pub struct T2iAdapter {
    target: T2iTarget,
    unshuffle: usize,
    channels: usize,
    conv_in: Option<Conv2d>,
    levels: Vec<Level>,
}

impl T2iAdapter {
    /// Recognises an adapter: full or light, under the original's names or those of diffusers.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        if dict.contains("adapter.body.0.resnets.0.block1.weight") {
            return Self::load(&from_diffusers(dict));
        }
        let root = dict.root();
        if root.has("body.0.in_conv.weight") && !root.has("conv_in.weight") {
            Self::light(&root)
        } else {
            Self::full(&root)
        }
    }

    /// (target, folding factor, channels of the hint) from the channels after folding.
    fn folding(scope: &Scope<'_>, inputs: usize) -> Built<(T2iTarget, usize, usize)> {
        match inputs {
            64 | 192 => Ok((T2iTarget::Sd1, 8, inputs / 64)),
            256 | 768 => Ok((T2iTarget::Sdxl, 16, inputs / 256)),
            _ => Err(scope.invalid(format!("{inputs} channels are no folded hint of a known adapter"))),
        }
    }

    fn full(root: &Scope<'_>) -> Built<Self> {
        let (target, unshuffle, channels) = Self::folding(root, root.shape("conv_in.weight", 4)?[1])?;
        let conv_in = conv(&root.at("conv_in"), channels * unshuffle * unshuffle)?;
        let body = root.at("body");
        let count = body.count();
        if count == 0 || !count.is_multiple_of(LEVELS) {
            return Err(root.invalid(format!("{count} residual blocks do not make {LEVELS} sizes")));
        }
        let (mut width, mut levels) = (conv_in.out_channels(), vec![]);
        for level in 0..LEVELS {
            let mut blocks = vec![];
            for i in 0..count / LEVELS {
                let block = ResBlock::new(&body.at(level * (count / LEVELS) + i), width)?;
                width = block.channels();
                blocks.push(block);
            }
            let down = match target {
                T2iTarget::Sd1 => level > 0,
                T2iTarget::Sdxl => level == 2,
            };
            levels.push(Level { in_conv: None, blocks, out_conv: None, down });
        }
        Ok(Self { target, unshuffle, channels, conv_in: Some(conv_in), levels })
    }

    fn light(root: &Scope<'_>) -> Built<Self> {
        let body = root.at("body");
        let mut width = body.at(0).shape("in_conv.weight", 4)?[1];
        let (target, unshuffle, channels) = Self::folding(root, width)?;
        let mut levels = vec![];
        for level in 0..body.count() {
            let scope = body.at(level);
            let in_conv = conv(&scope.at("in_conv"), width)?;
            let inner = scope.at("body");
            let blocks = (0..inner.count())
                .map(|i| ResBlock::new(&inner.at(i), in_conv.out_channels()))
                .collect::<Built<Vec<_>>>()?;
            let out_conv = conv(&scope.at("out_conv"), in_conv.out_channels())?;
            width = out_conv.out_channels();
            levels.push(Level { in_conv: Some(in_conv), blocks, out_conv: Some(out_conv), down: level > 0 });
        }
        if levels.len() != LEVELS {
            return Err(root.invalid(format!("{} sizes, an adapter has {LEVELS}", levels.len())));
        }
        Ok(Self { target, unshuffle, channels, conv_in: None, levels })
    }

    /// The U-Net it is for.
    pub fn target(&self) -> T2iTarget {
        self.target
    }

    /// Channels of the hint picture: 3, or 1 (sketches).
    pub fn hint_channels(&self) -> usize {
        self.channels
    }

    /// Residuals at strength 1 of a hint [B, C, H, W] in 0..1, placed so that the U-Net finds them when it takes entries from
    /// the end.
    pub fn forward(&self, hint: &Tensor) -> Result<Control> {
        if hint.dims4()?.1 != self.channels {
            bail!("the hint has {} channels, this adapter needs {}", hint.dims4()?.1, self.channels)
        }
        let mut x = pixel_unshuffle(hint, self.unshuffle)?;
        if let Some(conv) = &self.conv_in {
            x = conv.forward(&x)?;
        }
        let mut features = vec![];
        for level in &self.levels {
            if level.down {
                x = halve(&x)?;
            }
            if let Some(conv) = &level.in_conv {
                x = conv.forward(&x)?;
            }
            for block in &level.blocks {
                x = block.forward(x)?;
            }
            if let Some(conv) = &level.out_conv {
                x = conv.forward(&x)?;
            }
            features.push(x.clone());
        }
        // Input blocks whose results the features are added to, in order; SDXL's last goes after the middle block.
        let (places, blocks): (&[usize], _) = match self.target {
            T2iTarget::Sd1 => (&[2, 5, 8, 11], 12),
            T2iTarget::Sdxl => (&[3, 5, 8], 10),
        };
        let mut control = Control { input: vec![None; blocks], ..Control::default() };
        let mut features = features.into_iter();
        for (place, feature) in places.iter().zip(features.by_ref()) {
            control.input[blocks - 1 - place] = Some(feature);
        }
        control.middle.extend(features.map(Some));
        Ok(control)
    }
}

/// The original's names: blocks are numbered through, two of each size.
fn from_diffusers(dict: &StateDict) -> StateDict {
    let mut out = StateDict::new(dict.source(), indexmap::IndexMap::new(), dict.metadata().clone());
    for (name, weight) in dict.iter() {
        let name = name.strip_prefix("adapter.").unwrap_or(name);
        let parts: Vec<&str> = name.split('.').collect();
        let renamed = match parts.as_slice() {
            ["body", level, "resnets", i, rest @ ..] => match (level.parse::<usize>(), i.parse::<usize>()) {
                (Ok(level), Ok(i)) => format!("body.{}.{}", 2 * level + i, rest.join(".")),
                _ => continue,
            },
            ["body", level, "in_conv", end] => match level.parse::<usize>() {
                Ok(level) => format!("body.{}.in_conv.{end}", 2 * level),
                Err(_) => continue,
            },
            _ => name.to_owned(),
        };
        out.insert(renamed, weight.clone());
    }
    out
}
