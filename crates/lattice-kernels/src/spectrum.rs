//! Spatial frequencies of planes, without a Fourier transform: few of them are ever asked for.

use candle_core::{Result, Tensor, bail};

/// The part of the last two axes of `t` [.., H, W] whose frequencies are below `cutoff`: -f..f of each axis, where f is
/// the lesser of `cutoff` and half the axis. Real part of the inverse transform.
///
/// The band holds -f but not f, so the projection onto it is complex: `Re(K_h T K_w^T)` with K = A + iB.
///
/// # Errors
/// If there are no two axes.
pub fn low_frequencies(t: &Tensor, cutoff: usize) -> Result<Tensor> {
    let &[.., height, width] = t.dims() else { bail!("{:?} has no rows and columns", t.shape()) };
    let (ah, bh) = band(height, cutoff, t)?;
    let (aw, bw) = band(width, cutoff, t)?;
    let planes = t.contiguous()?.reshape(((), height, width))?;
    let project = |rows: &Tensor, columns: &Tensor| {
        rows.broadcast_matmul(&planes)?.broadcast_matmul(&columns.t()?.contiguous()?)
    };
    (project(&ah, &aw)? - project(&bh, &bw)?)?.reshape(t.shape())
}

/// Real and imaginary part of the projection onto frequencies -f..f of an axis of n, [1, n, n] each.
fn band(n: usize, cutoff: usize, like: &Tensor) -> Result<(Tensor, Tensor)> {
    let f = cutoff.min(n / 2) as i64;
    // The kernel depends on the distance alone.
    let kernel = |distance: usize| {
        let sum = (-f..f).fold((0.0, 0.0), |(re, im), k| {
            let angle = std::f64::consts::TAU * (k as f64) * (distance as f64) / (n as f64);
            (re + angle.cos(), im + angle.sin())
        });
        ((sum.0 / n as f64) as f32, (sum.1 / n as f64) as f32)
    };
    let kernel: Vec<(f32, f32)> = (0..n).map(kernel).collect();
    let entries = (0..n * n).map(|i| kernel[(i / n + n - i % n) % n]);
    let (re, im): (Vec<f32>, Vec<f32>) = entries.unzip();
    let matrix =
        |values: Vec<f32>| Tensor::from_vec(values, (1, n, n), like.device())?.to_dtype(like.dtype());
    Ok((matrix(re)?, matrix(im)?))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The plane of a wave: cos(2 pi (u y / h + v x / w)).
    fn wave(h: usize, w: usize, u: f64, v: f64) -> Tensor {
        let value = |i: usize| {
            let (y, x) = ((i / w) as f64 / h as f64, (i % w) as f64 / w as f64);
            (std::f64::consts::TAU * (u * y + v * x)).cos() as f32
        };
        Tensor::from_vec((0..h * w).map(value).collect::<Vec<_>>(), (1, 1, h, w), &Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_vec0().unwrap()
    }

    #[test]
    fn waves_below_the_cutoff_pass_and_others_do_not() {
        for (h, w) in [(8, 8), (6, 10), (7, 9)] {
            for (u, v) in [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (2.0, 1.0)] {
                let plane = wave(h, w, u, v);
                let whole = low_frequencies(&plane, usize::MAX).unwrap();
                // All frequencies of an even axis; an odd one has one more at the upper end than the band.
                if h % 2 == 0 && w % 2 == 0 {
                    assert!(difference(&whole, &plane) < 1e-5);
                }
                assert!(difference(&low_frequencies(&plane, 3).unwrap(), &plane) < 1e-5, "{u} {v}");
            }
            // Of frequencies 1 the band of cutoff 1 holds -1 alone: half of a wave, whose real part is half the wave.
            let half = low_frequencies(&wave(h, w, 1.0, 0.0), 1).unwrap();
            assert!(difference(&half, &(wave(h, w, 1.0, 0.0) * 0.5).unwrap()) < 1e-5);
            let none = low_frequencies(&wave(h, w, 2.0, 2.0), 1).unwrap();
            assert!(difference(&none, &none.zeros_like().unwrap()) < 1e-5);
        }
    }
}
