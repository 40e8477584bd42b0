//! Token merging (Bolya et al., arXiv 2210.09461 and 2303.17604): similar tokens are one for the time of an attention.

use candle_core::{D, Result, Tensor};

use super::place::Place;
use crate::options::TokenMerging;

/// Side of the squares of which one cell each stays a destination.
const STRIDE: usize = 2;
/// Sources compared with all destinations at a time, which bounds the working memory.
const ROWS: usize = 1024;

/// Which tokens of a feature map become which: rows of the merged sequence.
#[derive(Debug)]
pub(super) struct Merging {
    /// For each item and token, its row among the merged ones.
    rows: Vec<Vec<u32>>,
    /// Number of merged tokens.
    count: usize,
}

impl Merging {
    /// The merging of tokens [B, H W, C] at a place; None where nothing is to be merged.
    ///
    /// One cell of every 2x2 square, drawn at random, is a destination, all others are sources. The share `ratio` of all
    /// tokens, those sources that are most like a destination, are merged into it.
    pub(super) fn choose(options: TokenMerging, place: &Place<'_>, tokens: &Tensor) -> Result<Option<Self>> {
        if place.depth() != Some(0) {
            return Ok(None);
        }
        let (batch, length, _) = tokens.dims3()?;
        let is_destination = destinations(place);
        let split = |wanted: bool| -> Vec<u32> {
            (0..length as u32).filter(|i| is_destination[*i as usize] == wanted).collect()
        };
        let (targets, sources) = (split(true), split(false));
        let merged = ((length as f64 * options.ratio.clamp(0.0, 1.0)) as usize).min(sources.len());
        if merged == 0 || targets.is_empty() {
            return Ok(None);
        }
        let unit = unit_rows(tokens)?;
        let count = length - merged;
        let mut rows = Vec::with_capacity(batch);
        for item in 0..batch {
            let nearest = nearest(&unit.get(item)?, &sources, &targets)?;
            rows.push(merged_rows(length, &sources, &targets, &nearest, merged));
        }
        Ok(Some(Self { rows, count }))
    }

    /// Tokens [B, L, C] to their means [B, merged, C].
    pub(super) fn merge(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = tokens.dims3()?;
        let values = tokens.flatten_all()?.to_vec1::<f32>()?;
        let mut means = vec![0f32; batch * self.count * width];
        for ((rows, values), means) in self
            .rows
            .iter()
            .zip(values.chunks_exact(length * width))
            .zip(means.chunks_exact_mut(self.count * width))
        {
            let mut counts = vec![0f32; self.count];
            for (row, token) in rows.iter().zip(values.chunks_exact(width)) {
                let row = *row as usize;
                counts[row] += 1.0;
                for (mean, value) in means[row * width..][..width].iter_mut().zip(token) {
                    *mean += value;
                }
            }
            for (mean, count) in means.chunks_exact_mut(width).zip(counts) {
                for value in mean.iter_mut() {
                    *value /= count;
                }
            }
        }
        Tensor::from_vec(means, (batch, self.count, width), tokens.device())
    }

    /// Merged tokens [B, merged, C] back at all their places.
    pub(super) fn unmerge(&self, merged: &Tensor) -> Result<Tensor> {
        let items = self.rows.iter().enumerate().map(|(item, rows)| {
            let rows = Tensor::from_slice(rows, rows.len(), merged.device())?;
            merged.get(item)?.contiguous()?.index_select(&rows, 0)
        });
        Tensor::stack(&items.collect::<Result<Vec<_>>>()?, 0)
    }
}

/// One cell of every whole square; cells beyond the last whole square are none.
fn destinations(place: &Place<'_>) -> Vec<bool> {
    let mut chosen = vec![false; place.height * place.width];
    let (down, across) = (place.height / STRIDE, place.width / STRIDE);
    for square in 0..down * across {
        let cell = (place.draw(square as u64) % (STRIDE * STRIDE) as u64) as usize;
        let y = square / across * STRIDE + cell / STRIDE;
        let x = square % across * STRIDE + cell % STRIDE;
        chosen[y * place.width + x] = true;
    }
    chosen
}

/// Tokens of length 1.
fn unit_rows(tokens: &Tensor) -> Result<Tensor> {
    let norms = tokens.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    tokens.broadcast_div(&norms)
}

/// For each source, how like it is to the destination that it is most like, and which that is.
fn nearest(unit: &Tensor, sources: &[u32], targets: &[u32]) -> Result<Vec<(f32, usize)>> {
    let select = |rows: &[u32]| unit.index_select(&Tensor::from_slice(rows, rows.len(), unit.device())?, 0);
    let towards = select(targets)?.t()?.contiguous()?;
    let mut nearest = Vec::with_capacity(sources.len());
    for rows in sources.chunks(ROWS) {
        let scores = select(rows)?.matmul(&towards)?.to_vec2::<f32>()?;
        nearest.extend(scores.iter().map(|row| {
            let best = (f32::NEG_INFINITY, 0);
            row.iter().enumerate().fold(best, |best, (i, &s)| if s > best.0 { (s, i) } else { best })
        }));
    }
    Ok(nearest)
}

/// Row of each token: unmerged sources first, then destinations with what is merged into them.
fn merged_rows(
    length: usize,
    sources: &[u32],
    targets: &[u32],
    nearest: &[(f32, usize)],
    merged: usize,
) -> Vec<u32> {
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by(|&a, &b| nearest[b].0.total_cmp(&nearest[a].0));
    let kept = order.len() - merged;
    let mut rows = vec![0; length];
    for (row, source) in order[merged..].iter().enumerate() {
        rows[sources[*source] as usize] = row as u32;
    }
    for (i, target) in targets.iter().enumerate() {
        rows[*target as usize] = (kept + i) as u32;
    }
    for source in &order[..merged] {
        rows[sources[*source] as usize] = (kept + nearest[*source].1) as u32;
    }
    rows
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::options::ForwardOptions;

    fn merging(ratio: f64, tokens: &Tensor) -> Option<Merging> {
        let options = ForwardOptions::default();
        let place =
            Place { height: 4, width: 6, latent: (4, 6), seed: 5, options: &options, grounding: None };
        Merging::choose(TokenMerging { ratio }, &place, tokens).unwrap()
    }

    fn tokens() -> Tensor {
        let values: Vec<f32> = (0..2 * 24 * 3).map(|i| ((i * 13 % 29) as f32 - 10.0) / 7.0).collect();
        Tensor::from_vec(values, (2, 24, 3), &Device::Cpu).unwrap()
    }

    #[test]
    fn as_many_tokens_are_merged_as_asked() {
        assert!(merging(0.0, &tokens()).is_none());
        for (ratio, count) in [(0.25, 18), (0.5, 12), (0.75, 6), (1.0, 6)] {
            let merging = merging(ratio, &tokens()).unwrap();
            assert_eq!(merging.merge(&tokens()).unwrap().dims(), [2, count, 3]);
            let back = merging.unmerge(&merging.merge(&tokens()).unwrap()).unwrap();
            assert_eq!(back.dims(), [2, 24, 3]);
            // Every token is part of the mean that it comes back as, so the sum is kept.
            let sum = |t: &Tensor| t.sum_all().unwrap().to_vec0::<f32>().unwrap();
            assert!((sum(&back) - sum(&tokens())).abs() < 1e-3, "{ratio}");
        }
    }

    #[test]
    fn equal_tokens_survive_unchanged() {
        let one = Tensor::new(&[[[1f32, -2.0, 0.5]]], &Device::Cpu).unwrap();
        let equal = one.broadcast_as((2, 24, 3)).unwrap().contiguous().unwrap();
        let merging = merging(0.5, &equal).unwrap();
        let back = merging.unmerge(&merging.merge(&equal).unwrap()).unwrap();
        let off = (back - equal).unwrap().abs().unwrap().max_all().unwrap().to_vec0::<f32>().unwrap();
        assert!(off < 1e-6);
    }
}
