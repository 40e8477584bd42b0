//! Applying a function to overlapping tiles of a tensor too large for it, and blending the results.

use candle_core::{DType, Device, Result, Tensor, bail};

/// How sizes and positions along an axis change under the function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Times a factor.
    Factor(f64),
    /// Latent frames to video frames: the first stands for one, each later one for `n`.
    ToFrames(usize),
    /// Video frames to latent frames, the inverse.
    FromFrames(usize),
}

impl Scaling {
    /// Size of the result of `size` cells.
    pub fn size(self, size: usize) -> usize {
        match self {
            Self::Factor(f) => (size as f64 * f).round_ties_even() as usize,
            Self::ToFrames(n) => (size * n).saturating_sub(n.saturating_sub(1)),
            Self::FromFrames(n) => (size + n.saturating_sub(1)) / n.max(1),
        }
    }

    /// Where the cell at `position` comes to lie.
    fn position(self, position: usize) -> usize {
        match self {
            Self::Factor(f) => (position as f64 * f).round_ties_even() as usize,
            Self::ToFrames(n) => position * n,
            Self::FromFrames(n) => (position as f64 / n.max(1) as f64).round_ties_even() as usize,
        }
    }
}

/// Tiling of one axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Cells of a tile.
    pub tile: usize,
    /// Cells that neighbouring tiles share.
    pub overlap: usize,
    /// What the function does to the axis.
    pub scaling: Scaling,
}

impl Axis {
    /// Starts of the tiles over `size` cells.
    fn starts(&self, size: usize) -> Result<Vec<usize>> {
        if size <= self.tile {
            return Ok(vec![0]);
        }
        if self.overlap >= self.tile {
            bail!("tiles of {} cells cannot overlap by {}", self.tile, self.overlap)
        }
        let starts = (0..size - self.overlap).step_by(self.tile - self.overlap);
        Ok(starts.map(|s| s.min(size - self.overlap)).collect())
    }

    /// Weights of the `length` cells of a tile's result: ramps over the overlap at both ends.
    fn weights(&self, length: usize) -> Vec<f32> {
        let mut weights = vec![1f32; length];
        let feather = self.scaling.size(self.overlap);
        if feather < length {
            for t in 0..feather {
                let factor = (t + 1) as f32 / feather as f32;
                weights[t] *= factor;
                weights[length - 1 - t] *= factor;
            }
        }
        weights
    }
}

/// How many tiles [`tiled_scale`] will ask for.
///
/// # Errors
/// If an overlap is not smaller than its tile.
pub fn tile_count(shape: &[usize], axes: &[Axis]) -> Result<usize> {
    let Some((items, sizes)) = shape.split_first() else { return Ok(0) };
    let sizes = sizes.get(1..).unwrap_or_default();
    let tiles = axes.iter().zip(sizes).map(|(axis, &size)| axis.starts(size).map(|s| s.len()));
    Ok(items * tiles.product::<Result<usize>>()?)
}

/// Applies `f` (`[1, C, ..]` to `[1, C', ..]`, the axes scaled) to tiles of `x` `[B, C, ..]`, item by item, and blends
/// the results: weighted by ramps over the overlaps, divided by the sum of the weights. An item that fits into one tile
/// goes through whole. Up to three axes after the channels; `axes` in their order. The result is f32 on the CPU.
///
/// # Errors
/// If the axes do not fit the tensor or each other, or `f` fails.
pub fn tiled_scale(
    x: &Tensor,
    axes: &[Axis],
    mut f: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let [items, _, sizes @ ..] = x.dims() else {
        bail!("tiling needs batch and channels, not {:?}", x.dims())
    };
    if sizes.len() != axes.len() || axes.is_empty() || axes.len() > 3 {
        bail!("{} tiled axes for a tensor of shape {:?}", axes.len(), x.dims())
    }
    let whole = axes.iter().zip(sizes).all(|(axis, &size)| size <= axis.tile);
    let mut results = Vec::with_capacity(*items);
    for i in 0..*items {
        let item = x.narrow(0, i, 1)?;
        let result = if whole { f(&item)? } else { blended(&item, sizes, axes, &mut f)? };
        results.push(result.to_device(&Device::Cpu)?.to_dtype(DType::F32)?);
    }
    if results.is_empty() {
        bail!("an empty batch cannot be tiled")
    }
    Tensor::cat(&results, 0)
}

/// One item `[1, C, ..]` by tiles.
fn blended(
    item: &Tensor,
    sizes: &[usize],
    axes: &[Axis],
    f: &mut impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let shape: Vec<usize> = axes.iter().zip(sizes).map(|(axis, &size)| axis.scaling.size(size)).collect();
    let mut sum: Option<Blend> = None;
    let starts: Vec<Vec<usize>> = axes.iter().zip(sizes).map(|(a, &n)| a.starts(n)).collect::<Result<_>>()?;
    let mut counters = vec![0; axes.len()];
    loop {
        let mut tile = item.clone();
        let mut at = Vec::with_capacity(axes.len());
        for (d, axis) in axes.iter().enumerate() {
            let start = starts[d][counters[d]];
            tile = tile.narrow(d + 2, start, axis.tile.min(sizes[d] - start))?;
            at.push(axis.scaling.position(start));
        }
        let result = f(&tile.contiguous()?)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (1, [channels, lengths @ ..]) = (result.dim(0)?, &result.dims()[1..]) else {
            bail!("a tile gave a batch of shape {:?}", result.dims())
        };
        if lengths.len() != axes.len() {
            bail!("a tile gave a tensor of shape {:?}", result.dims())
        }
        let sum = sum.get_or_insert_with(|| Blend::new(*channels, &shape));
        let weights: Vec<Vec<f32>> = axes.iter().zip(lengths).map(|(axis, &n)| axis.weights(n)).collect();
        sum.add(&result.flatten_all()?.to_vec1()?, *channels, lengths, &at, &weights)?;
        // The last axis turns fastest.
        let Some(d) = (0..axes.len()).rev().find(|&d| counters[d] + 1 < starts[d].len()) else { break };
        counters[d] += 1;
        counters[d + 1..].fill(0);
    }
    match sum {
        Some(sum) => sum.finish(&shape),
        None => bail!("there are no tiles"),
    }
}

/// Weighted sum of tiles and sum of their weights. Shapes are padded to three axes with leading ones.
struct Blend {
    channels: usize,
    shape: [usize; 3],
    sum: Vec<f32>,
    weight: Vec<f32>,
}

/// The values as those of the last of three axes, `fill` before.
fn padded<T: Copy>(values: &[T], fill: T) -> [T; 3] {
    let mut out = [fill; 3];
    out[3 - values.len()..].copy_from_slice(values);
    out
}

impl Blend {
    fn new(channels: usize, shape: &[usize]) -> Self {
        let shape = padded(shape, 1);
        let cells = shape.iter().product::<usize>();
        Self { channels, shape, sum: vec![0.0; channels * cells], weight: vec![0.0; cells] }
    }

    fn add(
        &mut self,
        tile: &[f32],
        channels: usize,
        lengths: &[usize],
        at: &[usize],
        weights: &[Vec<f32>],
    ) -> Result<()> {
        let (lengths, at) = (padded(lengths, 1), padded(at, 0));
        let outside = (0..3).any(|d| at[d] + lengths[d] > self.shape[d]);
        if channels != self.channels || outside {
            bail!(
                "a tile of {channels} channels and {lengths:?} cells does not fit at {at:?} of {:?}",
                self.shape
            )
        }
        let one = [1f32];
        let mut by_axis = [&one[..]; 3];
        for (slot, w) in by_axis[3 - weights.len()..].iter_mut().zip(weights) {
            *slot = w;
        }
        let [nt, ny, nx] = lengths;
        let cells = self.shape.iter().product::<usize>();
        for t in 0..nt {
            for y in 0..ny {
                let target = ((at[0] + t) * self.shape[1] + at[1] + y) * self.shape[2] + at[2];
                // In the reference's order: the mask is multiplied axis by axis.
                let row: Vec<f32> = by_axis[2].iter().map(|x| by_axis[0][t] * by_axis[1][y] * x).collect();
                self.weight[target..][..nx].iter_mut().zip(&row).for_each(|(o, w)| *o += w);
                for c in 0..channels {
                    let source = &tile[((c * nt + t) * ny + y) * nx..][..nx];
                    let out = &mut self.sum[c * cells + target..][..nx];
                    out.iter_mut().zip(source.iter().zip(&row)).for_each(|(o, (v, w))| *o += v * w);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, shape: &[usize]) -> Result<Tensor> {
        for plane in self.sum.chunks_exact_mut(self.weight.len().max(1)) {
            plane.iter_mut().zip(&self.weight).for_each(|(v, w)| *v /= w);
        }
        Tensor::from_vec(self.sum, [&[1, self.channels], shape].concat(), &Device::Cpu)
    }
}

/// Tiles of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// Columns of a tile.
    pub x: usize,
    /// Rows of a tile.
    pub y: usize,
    /// Cells shared by neighbours.
    pub overlap: usize,
}

impl Tiles {
    /// The axes of a picture `[B, C, H, W]` scaled by `factor`.
    pub fn axes(&self, factor: f64) -> [Axis; 2] {
        [self.y, self.x].map(|tile| Axis { tile, overlap: self.overlap, scaling: Scaling::Factor(factor) })
    }

    fn tall(self) -> Self {
        Self { x: self.x / 2, y: self.y * 2, ..self }
    }

    fn wide(self) -> Self {
        Self { x: self.x * 2, y: self.y / 2, ..self }
    }

    /// The three tilings whose results a decoder's user averages, in the order of their addition.
    pub fn decoding(self) -> [Self; 3] {
        [self.tall(), self.wide(), self]
    }

    /// The same for an encoder.
    pub fn encoding(self) -> [Self; 3] {
        [self, self.wide(), self.tall()]
    }
}

/// Mean of [`tiled_scale`] over several tilings of a picture `[B, C, H, W]`: the seams of one lie inside the tiles of the
/// others.
///
/// # Errors
/// As [`tiled_scale`].
pub fn mean_of_tilings(
    x: &Tensor,
    tilings: &[Tiles],
    factor: f64,
    mut f: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for tiles in tilings {
        let result = tiled_scale(x, &tiles.axes(factor), &mut f)?;
        sum = Some(match sum {
            Some(sum) => (sum + result)?,
            None => result,
        });
    }
    match sum {
        Some(sum) => sum / tilings.len() as f64,
        None => bail!("there are no tilings"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tiles_of_a_pointwise_function_blend_to_the_whole(
            (h, w) in (1..40usize, 1..40usize),
            (x, y, overlap) in (8..20usize, 8..20usize, 0..4usize),
        ) {
            let input = Tensor::randn(0f32, 1.0, (2, 2, h, w), &Device::Cpu).unwrap();
            let tiles = Tiles { x, y, overlap };
            let got = mean_of_tilings(&input, &tiles.decoding(), 1.0, |t| t * 3.0);
            // Half a tile may be as small as the overlap.
            let Ok(got) = got else {
                prop_assert!(x / 2 <= overlap || y / 2 <= overlap);
                return Ok(());
            };
            let error = (got - (input * 3.0).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
            prop_assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }

    #[test]
    fn frames_scale_there_and_back() {
        for n in 1..20 {
            assert_eq!(Scaling::FromFrames(4).size(Scaling::ToFrames(4).size(n)), n);
        }
    }
}
