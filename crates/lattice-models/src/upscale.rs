//! Upscaling networks: ESRGAN (Wang et al. 2018), Real-ESRGAN and its compact variant (Wang et al. 2021).

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig};
use lattice_kernels::ops;
use lattice_weights::{Scope, StateDict, Weight};

use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;
use crate::shuffle::{pixel_shuffle, pixel_unshuffle};

/// Slope of the leaky rectifiers.
const SLOPE: f64 = 0.2;
/// What residuals are multiplied by before they are added.
const RESIDUAL: f64 = 0.2;

fn leaky_relu(x: &Tensor) -> Result<Tensor> {
    x.maximum(&(x * SLOPE)?)
}

fn conv3(scope: &Scope<'_>, inputs: usize) -> Built<Conv2d> {
    let outputs = scope.shape("weight", 4)?[0];
    scope.conv2d(inputs, outputs, 3, Conv2dConfig::padded(1))
}

/// Five convolutions, each reading the results of all before it.
#[derive(Debug)]
struct DenseBlock(Vec<Conv2d>);

impl DenseBlock {
    /// `tail` follows each convolution's name in the file.
    fn new(scope: &Scope<'_>, channels: usize, tail: &str) -> Built<Self> {
        let (mut width, mut convs) = (channels, vec![]);
        for i in 1..=5 {
            let conv = conv3(&scope.at(format!("conv{i}{tail}")), width)?;
            width += conv.out_channels();
            convs.push(conv);
        }
        if convs.last().is_some_and(|c| c.out_channels() != channels) {
            return Err(scope.invalid(format!("`{}` changes the width", scope.full_name("conv5"))));
        }
        Ok(Self(convs))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some((last, convs)) = self.0.split_last() else { bail!("an empty dense block") };
        let mut features = x.clone();
        for conv in convs {
            let h = leaky_relu(&conv.forward(&features)?)?;
            features = Tensor::cat(&[features, h], 1)?;
        }
        (last.forward(&features)? * RESIDUAL)? + x
    }
}

/// Convolutions around residual-in-residual dense blocks, then enlargements by 2.
#[derive(Debug)]
struct Esrgan {
    unshuffle: usize,
    conv_first: Conv2d,
    body: Vec<[DenseBlock; 3]>,
    conv_body: Conv2d,
    conv_up: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
}

/// Names that differ between the two generations of files.
struct EsrganNames<'a> {
    first: Scope<'a>,
    blocks: Scope<'a>,
    dense: &'static str,
    tail: &'static str,
    body: Scope<'a>,
    ups: Vec<Scope<'a>>,
    hr: Scope<'a>,
    last: Scope<'a>,
}

impl<'a> EsrganNames<'a> {
    fn new(scope: &Scope<'a>) -> Option<Self> {
        if scope.has("conv_first.weight") {
            return Some(Self {
                first: scope.at("conv_first"),
                blocks: scope.at("body"),
                dense: "rdb",
                tail: "",
                body: scope.at("conv_body"),
                ups: (1..=3).map(|i| scope.at(format!("conv_up{i}"))).filter(|s| s.has("weight")).collect(),
                hr: scope.at("conv_hr"),
                last: scope.at("conv_last"),
            });
        }
        let model = scope.at("model");
        if !model.has("1.sub.0.RDB1.conv1.0.weight") {
            return None;
        }
        // After the body come enlarging convolutions and two more, at indices that depend on the factor.
        const LAST_INDEX: usize = 32;
        let mut after: Vec<_> = (2..LAST_INDEX).map(|i| model.at(i)).filter(|s| s.has("weight")).collect();
        let (last, hr) = (after.pop()?, after.pop()?);
        let blocks = model.at(1).at("sub");
        let body = blocks.at(blocks.count().checked_sub(1)?);
        Some(Self { first: model.at(0), blocks, dense: "RDB", tail: ".0", body, ups: after, hr, last })
    }
}

impl Esrgan {
    fn new(names: &EsrganNames<'_>) -> Built<Self> {
        let first = names.first.shape("weight", 4)?;
        let (channels, inputs) = (first[0], first[1]);
        let image = names.last.shape("weight", 4)?[0];
        // Pictures may be folded into more channels before the first convolution.
        let unshuffle = (inputs / image).isqrt().max(1);
        if image * unshuffle * unshuffle != inputs {
            let name = names.first.full_name("weight");
            return Err(names.first.invalid(format!("`{name}`: {inputs} channels are no folded picture")));
        }
        let dense = |i: usize, k: usize| {
            DenseBlock::new(&names.blocks.at(i).at(format!("{}{k}", names.dense)), channels, names.tail)
        };
        let is_block = |i: &usize| {
            names.blocks.at(i).at(format!("{}1", names.dense)).has(&format!("conv1{}.weight", names.tail))
        };
        let blocks = (0..names.blocks.count()).take_while(is_block).count();
        let same = |scope: &Scope<'_>| scope.conv2d(channels, channels, 3, Conv2dConfig::padded(1));
        Ok(Self {
            unshuffle,
            conv_first: conv3(&names.first, inputs)?,
            body: (0..blocks)
                .map(|i| Ok([dense(i, 1)?, dense(i, 2)?, dense(i, 3)?]))
                .collect::<Built<_>>()?,
            conv_body: same(&names.body)?,
            conv_up: names.ups.iter().map(same).collect::<Built<_>>()?,
            conv_hr: same(&names.hr)?,
            conv_last: names.last.conv2d(channels, image, 3, Conv2dConfig::padded(1))?,
        })
    }

    /// Enlargement of the folded picture.
    fn enlargement(&self) -> usize {
        1 << self.conv_up.len()
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let feature = self.conv_first.forward(&pixel_unshuffle(image, self.unshuffle)?)?;
        let mut h = feature.clone();
        for block in &self.body {
            let mut inner = h.clone();
            for dense in block {
                inner = dense.forward(&inner)?;
            }
            h = ((inner * RESIDUAL)? + h)?;
        }
        h = (feature + self.conv_body.forward(&h)?)?;
        for conv in &self.conv_up {
            let (height, width) = (h.dim(2)? * 2, h.dim(3)? * 2);
            h = leaky_relu(&conv.forward(&ops::upsample_nearest(&h, height, width)?)?)?;
        }
        h = leaky_relu(&self.conv_hr.forward(&h)?)?;
        self.conv_last.forward(&h)
    }
}

/// Convolutions with learned rectifier slopes, unfolded at the end and added to the enlarged picture.
#[derive(Debug)]
struct Compact {
    /// Each convolution with the slopes after it; the last has none.
    body: Vec<(Conv2d, Option<Weight>)>,
    scale: usize,
}

impl Compact {
    fn new(scope: &Scope<'_>) -> Built<Self> {
        let body = scope.at("body");
        let image = body.at(0).shape("weight", 4)?[1];
        let (mut channels, mut layers): (_, Vec<(Conv2d, Option<Weight>)>) = (image, vec![]);
        for i in 0..body.count() {
            let entry = body.at(i);
            if entry.weight("weight")?.dims().len() == 1 {
                let slopes = entry.tensor("weight", &[channels])?;
                match layers.last_mut() {
                    Some((_, place)) => *place = Some(slopes),
                    None => return Err(scope.invalid("slopes stand before the first convolution")),
                }
            } else {
                let conv = conv3(&entry, channels)?;
                channels = conv.out_channels();
                layers.push((conv, None));
            }
        }
        let scale = (channels / image).isqrt();
        if scale == 0 || scale * scale * image != channels {
            return Err(scope.invalid(format!("{channels} channels at the end are no folded picture")));
        }
        Ok(Self { body: layers, scale })
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let mut h = image.clone();
        for (conv, slopes) in &self.body {
            h = conv.forward(&h)?;
            if let Some(slopes) = slopes {
                let slopes = slopes.to_tensor(h.device())?.reshape((1, (), 1, 1))?;
                h = (h.relu()? - h.neg()?.relu()?.broadcast_mul(&slopes)?)?;
            }
        }
        let (height, width) = (image.dim(2)? * self.scale, image.dim(3)? * self.scale);
        pixel_shuffle(&h, self.scale)? + ops::upsample_nearest(image, height, width)?
    }
}

#[derive(Debug)]
enum Layout {
    Esrgan(Box<Esrgan>),
    Compact(Compact),
}

/// An upscaling network.
#[derive(Debug)]
pub struct Upscaler {
    layout: Layout,
    scale: usize,
}

impl Upscaler {
    /// Recognises an upscaler; tensors may be wrapped in `params_ema` or `params`.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        for prefix in ["params_ema.", "params.", "module."] {
            if dict.iter().next().is_some_and(|(name, _)| name.starts_with(prefix)) {
                return Self::load(&dict.extract(prefix));
            }
        }
        let root = dict.root();
        if let Some(names) = EsrganNames::new(&root) {
            let network = Esrgan::new(&names)?;
            if network.enlargement() % network.unshuffle != 0 {
                return Err(root.invalid("the network's factor is no whole number"));
            }
            let scale = network.enlargement() / network.unshuffle;
            return Ok(Self { layout: Layout::Esrgan(Box::new(network)), scale });
        }
        if root.has("body.0.weight") && root.has("body.1.weight") {
            let network = Compact::new(&root)?;
            let scale = network.scale;
            return Ok(Self { layout: Layout::Compact(network), scale });
        }
        Err(root.invalid("holds no known upscaler: neither ESRGAN nor Real-ESRGAN nor its compact variant"))
    }

    /// Pixels of the result per pixel along each axis.
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// Enlarges pictures [B, 3, H, W] in 0..1, and limits the result to that range.
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = image.dims4()?;
        let out = match &self.layout {
            Layout::Esrgan(network) => network.forward(image)?,
            Layout::Compact(network) => network.forward(image)?,
        };
        let out = out.narrow(2, 0, height * self.scale)?.narrow(3, 0, width * self.scale)?;
        out.contiguous()?.clamp(0f32, 1f32)
    }
}
