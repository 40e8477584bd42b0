//! The network.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{LayerNorm, Linear};
use lattice_weights::Scope;

use super::block::{DoubleBlock, SingleBlock};
use super::config::{FluxConfig, PATCH};
use super::placement::{Grid, place};
use crate::embedding::timestep_embedding;
use crate::error::Built;
use crate::layers::ScopeExt;
use crate::network::{DiffusionNetwork, NetworkInput};
use crate::options::ForwardOptions;
use crate::rope::Rope;
use crate::transformer::{Embedder, Modulation, check_width, pad_circular, plain_norm};

/// Base of the rotation frequencies.
const THETA: f64 = 10000.0;
/// Sigma and guidance are multiplied by this before they are embedded.
const TIME_FACTOR: f64 = 1000.0;

/// The Flux transformer.
#[derive(Debug)]
pub struct Flux {
    config: FluxConfig,
    img_in: Linear,
    time_in: Embedder,
    time_width: usize,
    vector_in: Embedder,
    guidance_in: Option<Embedder>,
    txt_in: Linear,
    double_blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    final_norm: LayerNorm,
    final_modulation: Modulation,
    final_linear: Linear,
}

impl Flux {
    /// Builds the network of that structure whose tensors stand below `scope`.
    pub fn new(scope: &Scope<'_>, config: FluxConfig) -> Built<Self> {
        let (hidden, cells) = (config.hidden, PATCH * PATCH);
        let embedder = |name: &str| Embedder::new(&scope.at(name), ["in_layer", "out_layer"], hidden);
        let (double, single, last) =
            (scope.at("double_blocks"), scope.at("single_blocks"), scope.at("final_layer"));
        Ok(Self {
            img_in: scope.at("img_in").linear(config.in_channels * cells, hidden)?,
            time_in: embedder("time_in")?,
            time_width: Embedder::input_width(&scope.at("time_in"), "in_layer")?,
            vector_in: embedder("vector_in")?,
            guidance_in: if config.guidance { Some(embedder("guidance_in")?) } else { None },
            txt_in: scope.at("txt_in").linear(config.context_width, hidden)?,
            double_blocks: (0..config.depth)
                .map(|i| DoubleBlock::new(&double.at(i), &config))
                .collect::<Built<_>>()?,
            single_blocks: (0..config.depth_single)
                .map(|i| SingleBlock::new(&single.at(i), &config))
                .collect::<Built<_>>()?,
            final_norm: plain_norm(1e-6),
            final_modulation: Modulation::new(&last.at("adaLN_modulation").at(1), hidden, 2)?,
            final_linear: last.at("linear").linear(hidden, config.out_channels * cells)?,
            config,
        })
    }

    /// The structure.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// Sum of the embedded time, guidance and vector condition, after SiLU, [B, C].
    fn condition(&self, input: &NetworkInput) -> Result<Tensor> {
        let scalar = |t: &Tensor| timestep_embedding(&(t * TIME_FACTOR)?, self.time_width);
        let mut vec = self.time_in.forward(&scalar(&input.timesteps)?)?;
        if let (Some(guidance_in), Some(guidance)) = (&self.guidance_in, &input.guidance) {
            vec = vec.broadcast_add(&guidance_in.forward(&scalar(guidance)?)?)?;
        }
        let y = match &input.y {
            Some(y) => y.clone(),
            // No vector condition counts as zeros, which the embedder still maps to something.
            None => Tensor::zeros((1, self.config.vector_width), vec.dtype(), vec.device())?,
        };
        check_width("the vector condition", y.dim(1)?, self.config.vector_width)?;
        vec.broadcast_add(&self.vector_in.forward(&y)?)?.silu()
    }

    /// Patches of a latent [B, C, H, W] as tokens [B, L, C * 4], values in the order (channel, row, column).
    fn patchify(x: &Tensor) -> Result<Tensor> {
        let x = pad_circular(x, PATCH)?;
        let (b, c, height, width) = x.dims4()?;
        let (rows, columns) = (height / PATCH, width / PATCH);
        let x = x.reshape(&[b, c, rows, PATCH, columns, PATCH])?;
        x.permute([0, 2, 4, 1, 3, 5])?.reshape((b, rows * columns, c * PATCH * PATCH))
    }

    fn unpatchify(&self, tokens: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
        let (b, c) = (tokens.dim(0)?, self.config.out_channels);
        let x = tokens.reshape(&[b, rows, columns, c, PATCH, PATCH])?;
        x.permute([0, 3, 1, 4, 2, 5])?.reshape((b, c, rows * PATCH, columns * PATCH))
    }
}

/// Adds a residual to the first of the tokens from `start` on, as many as it has.
fn add_residual(x: Tensor, start: usize, residual: Option<&Option<Tensor>>) -> Result<Tensor> {
    let Some(Some(residual)) = residual else { return Ok(x) };
    let (length, covered) = (x.dim(1)?, residual.dim(1)?);
    if start + covered > length {
        bail!("a control residual has {covered} tokens, the picture {}", length - start)
    }
    let middle = x.narrow(1, start, covered)?.broadcast_add(residual)?;
    let rest = length - start - covered;
    let mut pieces = vec![middle];
    if start > 0 {
        pieces.insert(0, x.narrow(1, 0, start)?);
    }
    if rest > 0 {
        pieces.push(x.narrow(1, start + covered, rest)?);
    }
    Tensor::cat(&pieces, 1)
}

impl DiffusionNetwork for Flux {
    fn forward(&self, input: &NetworkInput, options: &ForwardOptions) -> Result<Tensor> {
        let (_, channels, height, width) = input.x.dims4()?;
        if channels != self.config.in_channels {
            bail!("the latent has {channels} channels, this network needs {}", self.config.in_channels)
        }
        let Some(context) = &input.context else { bail!("this network needs encoded text") };
        let (_, text_length, text_width) = context.dims3()?;
        check_width("the encoded text", text_width, self.config.context_width)?;

        let grid =
            Grid { index: 0, rows: height.div_ceil(PATCH), columns: width.div_ceil(PATCH), top: 0, left: 0 };
        let mut tokens = vec![Self::patchify(&input.x)?];
        let mut positions = vec![[0.0; 3]; text_length];
        positions.extend(grid.positions());
        if let Some(reference) = &input.reference {
            let size = |t: &Tensor| Ok::<_, candle_core::Error>((t.dim(2)?, t.dim(3)?));
            let sizes = reference.latents.iter().map(size).collect::<Result<Vec<_>>>()?;
            for (latent, grid) in
                reference.latents.iter().zip(place((height, width), &sizes, reference.placement, PATCH))
            {
                tokens.push(Self::patchify(latent)?);
                positions.extend(grid.positions());
            }
        }
        let rope = Rope::new(&positions, &self.config.axes, THETA, input.x.device())?;
        let vec = self.condition(input)?;
        let mut img = self.img_in.forward(&Tensor::cat(&tokens, 1)?)?;
        drop(tokens);
        let mut txt = self.txt_in.forward(context)?;

        let control = input.control.as_ref();
        let heads = self.config.heads;
        for (i, block) in self.double_blocks.iter().enumerate() {
            if !options.skipped.double.contains(&i) {
                (img, txt) = block.forward(&img, &txt, &vec, &rope, heads)?;
            }
            img = add_residual(img, 0, control.and_then(|c| c.input.get(i)))?;
        }
        let mut x = Tensor::cat(&[txt, img], 1)?;
        for (i, block) in self.single_blocks.iter().enumerate() {
            if !options.skipped.single.contains(&i) {
                x = block.forward(&x, &vec, &rope, heads)?;
            }
            x = add_residual(x, text_length, control.and_then(|c| c.output.get(i)))?;
        }

        let x = x.narrow(1, text_length, grid.rows * grid.columns)?.contiguous()?;
        let parts = self.final_modulation.forward(&vec)?;
        let x = self.final_norm.forward_modulated(&x, &parts[0], &parts[1])?;
        let x = self.unpatchify(&self.final_linear.forward(&x)?, grid.rows, grid.columns)?;
        x.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
    }
}
