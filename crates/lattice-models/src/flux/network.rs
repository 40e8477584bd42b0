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

/// What makes tokens and a condition of the inputs.
#[derive(Debug)]
pub(super) struct Embeddings {
    img_in: Linear,
    time_in: Embedder,
    time_width: usize,
    vector_in: Embedder,
    vector_width: usize,
    guidance_in: Option<Embedder>,
    txt_in: Linear,
}

impl Embeddings {
    pub(super) fn new(scope: &Scope<'_>, config: &FluxConfig) -> Built<Self> {
        let hidden = config.hidden;
        let embedder = |name: &str| Embedder::new(&scope.at(name), ["in_layer", "out_layer"], hidden);
        Ok(Self {
            img_in: scope.at("img_in").linear(config.in_channels * PATCH * PATCH, hidden)?,
            time_in: embedder("time_in")?,
            time_width: Embedder::input_width(&scope.at("time_in"), "in_layer")?,
            vector_in: embedder("vector_in")?,
            vector_width: config.vector_width,
            guidance_in: if config.guidance { Some(embedder("guidance_in")?) } else { None },
            txt_in: scope.at("txt_in").linear(config.context_width, hidden)?,
        })
    }

    /// Tokens of patches [B, L, C * 4].
    pub(super) fn image(&self, patches: &Tensor) -> Result<Tensor> {
        self.img_in.forward(patches)
    }

    /// Tokens of the encoded text.
    pub(super) fn text(&self, input: &NetworkInput) -> Result<Tensor> {
        let Some(context) = &input.context else { bail!("this network needs encoded text") };
        check_width("the encoded text", context.dims3()?.2, self.txt_in.in_features())?;
        self.txt_in.forward(context)
    }

    /// Sum of the embedded time, guidance and vector condition, after SiLU, [B, C].
    pub(super) fn condition(&self, input: &NetworkInput) -> Result<Tensor> {
        let scalar = |t: &Tensor| timestep_embedding(&(t * TIME_FACTOR)?, self.time_width);
        let mut vec = self.time_in.forward(&scalar(&input.timesteps)?)?;
        if let (Some(guidance_in), Some(guidance)) = (&self.guidance_in, &input.guidance) {
            vec = vec.broadcast_add(&guidance_in.forward(&scalar(guidance)?)?)?;
        }
        let y = match &input.y {
            Some(y) => y.clone(),
            // No vector condition counts as zeros, which the embedder still maps to something.
            None => Tensor::zeros((1, self.vector_width), vec.dtype(), vec.device())?,
        };
        check_width("the vector condition", y.dim(1)?, self.vector_width)?;
        vec.broadcast_add(&self.vector_in.forward(&y)?)?.silu()
    }
}

/// Blocks 0, 1, ... below `scope`.
pub(super) fn double_blocks(scope: &Scope<'_>, config: &FluxConfig) -> Built<Vec<DoubleBlock>> {
    let blocks = scope.at("double_blocks");
    (0..config.depth).map(|i| DoubleBlock::new(&blocks.at(i), config)).collect()
}

/// Blocks 0, 1, ... below `scope`.
pub(super) fn single_blocks(scope: &Scope<'_>, config: &FluxConfig) -> Built<Vec<SingleBlock>> {
    let blocks = scope.at("single_blocks");
    (0..config.depth_single).map(|i| SingleBlock::new(&blocks.at(i), config)).collect()
}

/// Patches of a latent of that many rows and columns.
pub(super) fn grid(height: usize, width: usize) -> Grid {
    Grid { index: 0, rows: height.div_ceil(PATCH), columns: width.div_ceil(PATCH), top: 0, left: 0 }
}

/// Rotations for tokens at these positions.
pub(super) fn rope(
    positions: &[[f64; 3]],
    config: &FluxConfig,
    device: &candle_core::Device,
) -> Result<Rope> {
    Rope::new(positions, &config.axes, THETA, device)
}

/// Patches of a latent [B, C, H, W] as tokens [B, L, C * 4], values in the order (channel, row, column).
pub(super) fn patchify(x: &Tensor) -> Result<Tensor> {
    let x = pad_circular(x, PATCH)?;
    let (b, c, height, width) = x.dims4()?;
    let (rows, columns) = (height / PATCH, width / PATCH);
    let x = x.reshape(&[b, c, rows, PATCH, columns, PATCH])?;
    x.permute([0, 2, 4, 1, 3, 5])?.reshape((b, rows * columns, c * PATCH * PATCH))
}

/// The Flux transformer.
#[derive(Debug)]
pub struct Flux {
    config: FluxConfig,
    embeddings: Embeddings,
    double_blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    final_norm: LayerNorm,
    final_modulation: Modulation,
    final_linear: Linear,
}

impl Flux {
    /// Builds the network of that structure whose tensors stand below `scope`.
    pub fn new(scope: &Scope<'_>, config: FluxConfig) -> Built<Self> {
        let last = scope.at("final_layer");
        Ok(Self {
            embeddings: Embeddings::new(scope, &config)?,
            double_blocks: double_blocks(scope, &config)?,
            single_blocks: single_blocks(scope, &config)?,
            final_norm: plain_norm(1e-6),
            final_modulation: Modulation::new(&last.at("adaLN_modulation").at(1), config.hidden, 2)?,
            final_linear: last.at("linear").linear(config.hidden, config.out_channels * PATCH * PATCH)?,
            config,
        })
    }

    /// The structure.
    pub fn config(&self) -> &FluxConfig {
        &self.config
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
        let mut txt = self.embeddings.text(input)?;
        let text_length = txt.dim(1)?;

        let grid = grid(height, width);
        let mut tokens = vec![patchify(&input.x)?];
        let mut positions = vec![[0.0; 3]; text_length];
        positions.extend(grid.positions());
        if let Some(reference) = &input.reference {
            let size = |t: &Tensor| Ok::<_, candle_core::Error>((t.dim(2)?, t.dim(3)?));
            let sizes = reference.latents.iter().map(size).collect::<Result<Vec<_>>>()?;
            for (latent, grid) in
                reference.latents.iter().zip(place((height, width), &sizes, reference.placement, PATCH))
            {
                tokens.push(patchify(latent)?);
                positions.extend(grid.positions());
            }
        }
        let rope = rope(&positions, &self.config, input.x.device())?;
        let vec = self.embeddings.condition(input)?;
        let mut img = self.embeddings.image(&Tensor::cat(&tokens, 1)?)?;
        drop(tokens);

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
