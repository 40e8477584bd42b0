//! FreeU on one block of the way up.

use candle_core::{Result, Tensor};
use lattice_kernels::ops;

use crate::options::FreeU;

/// Backbone and skip of a block, [B, C, H, W] and [B, C', H, W], reweighted. `level` is the backbone's channels over those
/// of the first level: 4 and 2 are changed.
pub(super) fn reweight(free_u: &FreeU, level: usize, h: &Tensor, skip: &Tensor) -> Result<(Tensor, Tensor)> {
    let stage = match level {
        4 => 0,
        2 => 1,
        _ => return Ok((h.clone(), skip.clone())),
    };
    let (b, s) = (free_u.backbone[stage], free_u.skip[stage]);
    let half = h.dim(1)? / 2;
    let (scaled, rest) = (h.narrow(1, 0, half)?, h.narrow(1, half, h.dim(1)? - half)?);
    let scaled = if free_u.structured {
        scaled.broadcast_mul(&(relative_mean(h)? * (b - 1.0))?.affine(1.0, 1.0)?)?
    } else {
        (scaled * b)?
    };
    // The mask of the lowest frequencies is s, of all others 1.
    let skip = (skip + (ops::low_frequencies(skip, 1)? * (s - 1.0))?)?;
    Ok((Tensor::cat(&[scaled, rest], 1)?, skip))
}

/// The mean over channels, stretched to 0..1 for each item, [B, 1, H, W].
fn relative_mean(h: &Tensor) -> Result<Tensor> {
    let mean = h.mean_keepdim(1)?;
    let flat = mean.flatten_from(1)?;
    let extreme = |values: Tensor| values.reshape((h.dim(0)?, 1, 1, 1));
    let (low, high) = (extreme(flat.min(1)?)?, extreme(flat.max(1)?)?);
    mean.broadcast_sub(&low)?.broadcast_div(&(high - low)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn map(channels: usize) -> Tensor {
        let values: Vec<f32> = (0..channels * 16).map(|i| ((i * 7 % 11) as f32 - 4.0) / 3.0).collect();
        Tensor::from_vec(values, (1, channels, 4, 4), &Device::Cpu).unwrap()
    }

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn factors_of_one_change_nothing() {
        for structured in [false, true] {
            let free_u = FreeU { backbone: [1.0; 2], skip: [1.0; 2], structured };
            let (h, skip) = reweight(&free_u, 4, &map(4), &map(2)).unwrap();
            assert_eq!((values(&h), values(&skip)), (values(&map(4)), values(&map(2))));
        }
    }

    #[test]
    fn the_first_half_of_the_backbone_and_the_mean_of_the_skip_are_scaled() {
        let free_u = FreeU { backbone: [1.5, 2.0], skip: [0.0, 0.5], structured: false };
        let (h, skip) = reweight(&free_u, 2, &map(4), &map(2)).unwrap();
        let (h, before) = (values(&h), values(&map(4)));
        assert!(h[..32].iter().zip(&before).all(|(a, b)| (a - 2.0 * b).abs() < 1e-6));
        assert_eq!(h[32..], before[32..]);
        // The mean is one of the lowest frequencies.
        let mean = |t: &Tensor| values(t)[..16].iter().sum::<f32>() / 16.0;
        assert!((mean(&skip) - 0.5 * mean(&map(2))).abs() < 1e-6);
        let (untouched, _) = reweight(&free_u, 1, &map(4), &map(2)).unwrap();
        assert_eq!(values(&untouched), before);
    }

    #[test]
    fn version_two_scales_by_the_relative_mean() {
        let free_u = FreeU { backbone: [3.0, 1.0], skip: [1.0; 2], structured: true };
        let h = map(2);
        let (scaled, _) = reweight(&free_u, 4, &h, &map(2)).unwrap();
        let (before, after) = (values(&h), values(&scaled));
        let means: Vec<f32> = (0..16).map(|i| f32::midpoint(before[i], before[16 + i])).collect();
        let low = means.iter().copied().fold(f32::INFINITY, f32::min);
        let high = means.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for i in 0..16 {
            let factor = 1.0 + 2.0 * (means[i] - low) / (high - low);
            assert!((after[i] - before[i] * factor).abs() < 1e-5, "{i}");
        }
    }
}
