//! Canny's edge detector (J. Canny, "A computational approach to edge detection", 1986), with the choices of the kornia
//! library.

use candle_core::{Device, Result, Tensor, bail};

use crate::filter::{Border, convolve, gaussian};
use crate::tensor;

/// Edges of images `[B, H, W, C]`, C >= 3, as images of 0 and 1. Gradients above `high` are edges, and so are those
/// above `low` that touch an edge.
///
/// # Errors
/// If the images are smaller than 3 pixels or have no colour.
pub fn canny(images: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let (b, h, w, c) = images.dims4()?;
    if c < 3 {
        bail!("images of {c} channels have no colour")
    }
    let gray: Vec<f32> =
        tensor::to_vec(images)?.chunks_exact(c).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect();
    let gray = Tensor::from_vec(gray, (b, 1, h, w), &Device::Cpu)?;
    let kernel = gaussian((-2i8..=2).map(f32::from), 1.0);
    let smooth = tensor::to_vec(&convolve(&gray, &kernel, Border::Reflect)?)?;
    let mut edges = Vec::with_capacity(b * h * w * 3);
    for plane in smooth.chunks_exact(h * w) {
        let plane = Plane { data: plane, h, w };
        let thin = thinned(&plane);
        edges.extend(connected(&thin, (h, w), low as f32, high as f32).into_iter().flat_map(|v| [v; 3]));
    }
    tensor::from_vec(edges, (b, h, w, 3), images)
}

struct Plane<'a> {
    data: &'a [f32],
    h: usize,
    w: usize,
}

impl Plane<'_> {
    /// The value at a position, borders repeated.
    fn at(&self, y: isize, x: isize) -> f32 {
        self.data[Border::Replicate.index(y, self.h) * self.w + Border::Replicate.index(x, self.w)]
    }

    /// Sobel derivatives along x and y.
    fn gradient(&self, y: isize, x: isize) -> (f32, f32) {
        let smooth = |f: &dyn Fn(isize) -> f32| f(-1) + 2.0 * f(0) + f(1);
        let dx = smooth(&|k| self.at(y + k, x + 1) - self.at(y + k, x - 1));
        let dy = smooth(&|k| self.at(y + 1, x + k) - self.at(y - 1, x + k));
        (dx, dy)
    }
}

/// Gradient magnitudes that exceed both neighbours along the gradient's direction (to 45 degrees), 0 elsewhere.
fn thinned(plane: &Plane<'_>) -> Vec<f32> {
    let (h, w) = (plane.h, plane.w);
    let positions = || (0..h as isize).flat_map(|y| (0..w as isize).map(move |x| (y, x)));
    let gradients: Vec<(f32, f32)> = positions().map(|(y, x)| plane.gradient(y, x)).collect();
    let magnitudes: Vec<f32> = gradients.iter().map(|(dx, dy)| (dx * dx + dy * dy + 1e-6).sqrt()).collect();
    let magnitude = |y: isize, x: isize| {
        let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
        if inside { magnitudes[y as usize * w + x as usize] } else { 0.0 }
    };
    let keep = |((y, x), (dx, dy)): ((isize, isize), (f32, f32))| {
        let octant = (dy.atan2(dx).to_degrees() / 45.0).round_ties_even() as i32;
        let (sy, sx) = match octant.rem_euclid(4) {
            0 => (0, 1),
            1 => (1, 1),
            2 => (1, 0),
            _ => (1, -1),
        };
        let own = magnitude(y, x);
        if own > magnitude(y + sy, x + sx) && own > magnitude(y - sy, x - sx) { own } else { 0.0 }
    };
    positions().zip(gradients.iter().copied()).map(keep).collect()
}

/// Hysteresis: 1 at magnitudes above `high` and at those above `low` that are linked to them over 8 neighbours.
fn connected(magnitudes: &[f32], (h, w): (usize, usize), low: f32, high: f32) -> Vec<f32> {
    let mut edges = vec![0f32; h * w];
    let strong = |m: f32| m > low && m > high;
    let mut open: Vec<usize> = (0..h * w).filter(|&i| strong(magnitudes[i])).collect();
    for &i in &open {
        edges[i] = 1.0;
    }
    while let Some(i) = open.pop() {
        let (y, x) = (i / w, i % w);
        for ny in y.saturating_sub(1)..(y + 2).min(h) {
            for nx in x.saturating_sub(1)..(x + 2).min(w) {
                let n = ny * w + nx;
                if edges[n] == 0.0 && magnitudes[n] > low {
                    edges[n] = 1.0;
                    open.push(n);
                }
            }
        }
    }
    edges
}
