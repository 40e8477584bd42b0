//! Reducing images to a palette, as Pillow does it.

use candle_core::{Result, Tensor, bail};

use crate::pixels::{self, Pixels};

/// Colours to choose from.
pub type Palette = [[u8; 3]];

/// How the error of a choice is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dither {
    /// Not at all.
    None,
    /// Error diffusion (Floyd and Steinberg, 1976).
    FloydSteinberg,
    /// Ordered dithering with a Bayer matrix of that many pixels a side, a power of two.
    Bayer(usize),
}

impl std::str::FromStr for Dither {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "none" => Self::None,
            "floyd-steinberg" => Self::FloydSteinberg,
            "bayer-2" => Self::Bayer(2),
            "bayer-4" => Self::Bayer(4),
            "bayer-8" => Self::Bayer(8),
            "bayer-16" => Self::Bayer(16),
            _ => bail!("unknown dither {name:?}"),
        })
    }
}

/// Images `[B, H, W, 3]` with at most `colors` colours each, chosen by median cut.
///
/// # Errors
/// If the images are not RGB or no colour is allowed.
pub fn quantize(images: &Tensor, colors: usize, dither: Dither) -> Result<Tensor> {
    each(images, |picture| dithered(picture, &crate::median_cut::palette(&picture.data, colors)?, dither))
}

/// Images `[B, H, W, 3]` with the colours of a palette.
///
/// # Errors
/// If the images are not RGB or the palette is empty.
pub fn with_palette(images: &Tensor, palette: &Palette, dither: Dither) -> Result<Tensor> {
    each(images, |picture| dithered(picture, palette, dither))
}

fn each(images: &Tensor, f: impl Fn(&Pixels) -> Result<Pixels>) -> Result<Tensor> {
    let pictures = pixels::from_images(images)?;
    if pictures.iter().any(|p| p.channels != 3) {
        bail!("only RGB images can be quantised")
    }
    let pictures = pictures.iter().map(f).collect::<Result<Vec<_>>>()?;
    pixels::to_images(&pictures)?.to_device(images.device())?.to_dtype(images.dtype())
}

fn dithered(picture: &Pixels, palette: &Palette, dither: Dither) -> Result<Pixels> {
    if palette.is_empty() || palette.len() > 256 {
        bail!("a palette has 1 to 256 colours, not {}", palette.len())
    }
    let mut nearest = Nearest::new(palette);
    let data = match dither {
        Dither::None => picture.data.as_chunks::<3>().0.iter().flat_map(|p| nearest.color(*p)).collect(),
        Dither::FloydSteinberg => floyd_steinberg(picture, &mut nearest),
        Dither::Bayer(side) => bayer(picture, side, palette.len(), &mut nearest),
    };
    Ok(Pixels { data, ..picture.clone() })
}

/// Nearest palette colours. As in Pillow's cache a pixel counts as the lower corner of its cell of 4x4x4 colours.
struct Nearest<'a> {
    palette: &'a Palette,
    cells: Vec<Option<u8>>,
}

impl<'a> Nearest<'a> {
    fn new(palette: &'a Palette) -> Self {
        Self { palette, cells: vec![None; 64 * 64 * 64] }
    }

    fn color(&mut self, pixel: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = pixel.map(|v| usize::from(v >> 2));
        let palette = self.palette;
        let index = *self.cells[(r * 64 + g) * 64 + b].get_or_insert_with(|| {
            let corner = pixel.map(|v| i32::from(v & !3));
            let distance =
                |c: &[u8; 3]| c.iter().zip(corner).map(|(&c, v)| (i32::from(c) - v).pow(2)).sum::<i32>();
            // The first of equal ones; the palette has at most 256 colours.
            (0..palette.len()).min_by_key(|&i| distance(&palette[i])).unwrap_or(0) as u8
        });
        palette[usize::from(index)]
    }
}

/// Error diffusion with Pillow's integer arithmetic: a row buffer holds sixteenths of the error that the row above passes
/// down.
fn floyd_steinberg(picture: &Pixels, nearest: &mut Nearest<'_>) -> Vec<u8> {
    let w = picture.width;
    let mut above = vec![[0i32; 3]; w + 1];
    let mut out = Vec::with_capacity(picture.data.len());
    for row in picture.data.chunks_exact(3 * w.max(1)) {
        let (mut right, mut below, mut below_right) = ([0i32; 3], [0i32; 3], [0i32; 3]);
        let mut last = [0i32; 3];
        for (x, pixel) in row.as_chunks::<3>().0.iter().enumerate() {
            let wanted: [u8; 3] = std::array::from_fn(|c| {
                (i32::from(pixel[c]) + (right[c] + above[x + 1][c]) / 16).clamp(0, 255) as u8
            });
            let chosen = nearest.color(wanted);
            out.extend(chosen);
            for c in 0..3 {
                let error = i32::from(wanted[c]) - i32::from(chosen[c]);
                above[x][c] = 3 * error + below[c];
                below[c] = 5 * error + below_right[c];
                below_right[c] = error;
                right[c] = 7 * error;
                last[c] = error;
            }
        }
        // Pillow stores the blue channel's three remainders in the place of the three channels.
        above[w] = [below[2], below_right[2], last[2]];
    }
    out
}

/// Ordered dithering: the threshold matrix is spread over 512 / palette size levels.
fn bayer(picture: &Pixels, side: usize, colors: usize, nearest: &mut Nearest<'_>) -> Vec<u8> {
    let matrix = bayer_matrix(side);
    let spread = 512.0 / colors as f32;
    let pixels = picture.data.as_chunks::<3>().0.iter().enumerate();
    pixels
        .flat_map(|(i, pixel)| {
            let (y, x) = (i / picture.width, i % picture.width);
            let offset = spread * matrix[(y % side) * side + x % side] + 0.5;
            nearest.color(pixel.map(|v| (f32::from(v) + offset).clamp(0.0, 255.0) as u8))
        })
        .collect()
}

/// The Bayer matrix of `side` (a power of two), centred on zero: each step puts four copies side by side, apart by the
/// offsets -1.5, 0.5, 1.5, -0.5 of a quarter of the step before.
fn bayer_matrix(side: usize) -> Vec<f32> {
    const OFFSETS: [[f32; 2]; 2] = [[-1.5, 0.5], [1.5, -0.5]];
    let (mut matrix, mut n, mut q) = (vec![0f32], 1, 1f32);
    while n < side {
        q *= 4.0;
        let cell = |y: usize, x: usize| (q * matrix[(y % n) * n + x % n] + OFFSETS[y / n][x / n]) / q;
        matrix = (0..2 * n).flat_map(|y| (0..2 * n).map(move |x| (y, x))).map(|(y, x)| cell(y, x)).collect();
        n *= 2;
    }
    matrix
}
