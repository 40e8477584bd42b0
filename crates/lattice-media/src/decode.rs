//! Reading picture files.

use std::io::Cursor;

use candle_core::{Device, Tensor};
use image::codecs::{gif::GifDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat, ImageReader};

use crate::{MediaError, Result, pixels, png_decode, tensor, webp_decode};

/// What a file may cost. A few bytes can claim billions of pixels; such claims are refused before memory is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest width and height in pixels.
    pub side: u32,
    /// Greatest number of pixels of one picture.
    pub pixels: u64,
    /// Greatest number of pixels of all pictures of an animation together.
    pub total_pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { side: 65_535, pixels: 178_956_970, total_pixels: 1 << 29 }
    }
}

/// One picture of a file, upright, 8 bits per sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// RGB, interleaved.
    pub rgb: Vec<u8>,
    /// Opacity per pixel, where the file says anything about it.
    pub alpha: Option<Vec<u8>>,
    /// The opacity comes from one transparent colour of a picture without palette: only users of RGBA want it.
    pub color_key: bool,
}

/// The pictures of a file that have the size of the first one.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// At least one; several for animations.
    pub frames: Vec<Picture>,
}

/// A channel of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Opacity; 1 where the file has none.
    Alpha,
}

/// Decodes a PNG, JPEG, WEBP, GIF or BMP file, all frames of an animation, turned upright as EXIF says.
///
/// # Errors
/// If the format is unknown, the data are broken or cut off, or the limits are exceeded.
pub fn decode(file: &[u8], limits: Limits) -> Result<Decoded> {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let format = reader.ok().and_then(|r| r.format()).ok_or(MediaError::UnknownFormat)?;
    let mut frames = match format {
        ImageFormat::Png => png_decode::frames(file, limits)?,
        ImageFormat::Gif => {
            let decoder = GifDecoder::new(Cursor::new(file)).map_err(|e| MediaError::broken("GIF", e))?;
            limits.check(decoder.dimensions())?;
            animation_frames("GIF", decoder.into_frames(), limits)?
        }
        ImageFormat::WebP => {
            let mut decoder =
                WebPDecoder::new(Cursor::new(file)).map_err(|e| MediaError::broken("WEBP", e))?;
            limits.check(decoder.dimensions())?;
            if decoder.has_animation() {
                let alpha = decoder.color_type().has_alpha();
                let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
                let mut frames = webp_decode::frames(file, decoder.dimensions(), alpha, limits)?;
                for frame in &mut frames {
                    frame.orient(orientation);
                }
                frames
            } else {
                vec![still("WEBP", decoder, limits)?]
            }
        }
        ImageFormat::Jpeg => {
            let decoder = image::codecs::jpeg::JpegDecoder::new(Cursor::new(file));
            vec![still("JPEG", decoder.map_err(|e| MediaError::broken("JPEG", e))?, limits)?]
        }
        ImageFormat::Bmp => {
            let decoder = image::codecs::bmp::BmpDecoder::new(Cursor::new(file));
            vec![still("BMP", decoder.map_err(|e| MediaError::broken("BMP", e))?, limits)?]
        }
        _ => return Err(MediaError::UnknownFormat),
    };
    let size = frames.first().map(|f| (f.width, f.height)).ok_or(MediaError::UnknownFormat)?;
    frames.retain(|f| (f.width, f.height) == size);
    Ok(Decoded { frames })
}

fn still(format: &'static str, mut decoder: impl ImageDecoder, limits: Limits) -> Result<Picture> {
    limits.check(decoder.dimensions())?;
    let broken = |e| MediaError::broken(format, e);
    let mut budget = image::Limits::no_limits();
    budget.max_alloc = Some(limits.pixels.saturating_mul(16));
    decoder.set_limits(budget).map_err(broken)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let mut picture = Picture::from_dynamic(image);
    picture.orient(orientation);
    Ok(picture)
}

/// The pictures have an alpha channel where a pixel is not opaque.
fn animation_frames(format: &'static str, frames: Frames<'_>, limits: Limits) -> Result<Vec<Picture>> {
    let mut budget = limits.total_pixels;
    let mut pictures = Vec::new();
    for frame in frames {
        let image = frame.map_err(|e| MediaError::broken(format, e))?.into_buffer();
        let size = u64::from(image.width()) * u64::from(image.height());
        budget =
            budget.checked_sub(size).ok_or_else(|| limits.exceeded(image.dimensions(), "too many frames"))?;
        let mut picture = Picture::from_dynamic(DynamicImage::ImageRgba8(image));
        if picture.alpha.as_ref().is_some_and(|a| a.iter().all(|&v| v == u8::MAX)) {
            picture.alpha = None;
        }
        pictures.push(picture);
    }
    Ok(pictures)
}

impl Limits {
    /// # Errors
    /// If a picture of that (width, height) is too large.
    pub fn check(&self, size: (u32, u32)) -> Result<()> {
        if size.0 > self.side || size.1 > self.side {
            return Err(self.exceeded(size, &format!("{} pixels a side", self.side)));
        }
        if u64::from(size.0) * u64::from(size.1) > self.pixels {
            return Err(self.exceeded(size, &format!("{} pixels in all", self.pixels)));
        }
        Ok(())
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn exceeded(&self, (width, height): (u32, u32), limit: &str) -> MediaError {
        MediaError::TooLarge { width: width.into(), height: height.into(), limit: limit.to_owned() }
    }
}

impl Picture {
    pub(crate) fn from_dynamic(image: DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let alpha = image.color().has_alpha();
        if alpha {
            let rgba = image.into_rgba8().into_raw();
            let rgb = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
            let alpha = Some(rgba.chunks_exact(4).map(|p| p[3]).collect());
            Self { width, height, rgb, alpha, color_key: false }
        } else {
            let rgb = image.into_rgb8().into_raw();
            Self { width, height, rgb, alpha: None, color_key: false }
        }
    }

    /// Turns and mirrors the picture as an EXIF orientation says.
    pub(crate) fn orient(&mut self, orientation: Orientation) {
        // (transpose first, then mirror columns, then mirror rows)
        let (transpose, columns, rows) = match orientation {
            Orientation::NoTransforms => return,
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::Rotate180 => (false, true, true),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate90 => (true, true, false),
            Orientation::Rotate270FlipH => (true, true, true),
            Orientation::Rotate270 => (true, false, true),
        };
        let (old_w, old_h) = (self.width, self.height);
        let (w, h) = if transpose { (old_h, old_w) } else { (old_w, old_h) };
        let source = |x: usize, y: usize| {
            let (x, y) = (if columns { w - 1 - x } else { x }, if rows { h - 1 - y } else { y });
            let (x, y) = if transpose { (y, x) } else { (x, y) };
            y * old_w + x
        };
        let order: Vec<usize> =
            (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).map(|(x, y)| source(x, y)).collect();
        self.rgb =
            order.iter().flat_map(|&i| [self.rgb[3 * i], self.rgb[3 * i + 1], self.rgb[3 * i + 2]]).collect();
        if let Some(alpha) = &mut self.alpha {
            *alpha = order.iter().map(|&i| alpha[i]).collect();
        }
        (self.width, self.height) = (w, h);
    }
}

impl Decoded {
    /// Image batch `[B, H, W, 3]`, samples / 255; opacity is dropped, not applied.
    pub fn image(&self) -> Result<Tensor> {
        let frame = |f: &Picture| pixels::Pixels {
            width: f.width,
            height: f.height,
            channels: 3,
            data: f.rgb.clone(),
        };
        Ok(pixels::to_images(&self.frames.iter().map(frame).collect::<Vec<_>>())?)
    }

    /// Mask `[B, H, W]` = 1 - alpha; `[B, 64, 64]` of zeros where the file has no opacity (a colour key does not count).
    pub fn mask(&self) -> Result<Tensor> {
        let has = |f: &Picture| f.alpha.is_some() && !f.color_key;
        if !self.frames.iter().any(has) {
            return Ok(Tensor::zeros((self.frames.len(), 64, 64), candle_core::DType::F32, &Device::Cpu)?);
        }
        let (w, h) = self.size();
        let mut data = tensor::filled(&[self.frames.len(), h, w], 0f32)?;
        for (frame, out) in self.frames.iter().zip(data.chunks_exact_mut((w * h).max(1))) {
            if let Some(alpha) = frame.alpha.as_ref().filter(|_| !frame.color_key) {
                out.iter_mut().zip(alpha).for_each(|(o, &a)| *o = 1.0 - f32::from(a) / 255.0);
            }
        }
        Ok(Tensor::from_vec(data, (self.frames.len(), h, w), &Device::Cpu)?)
    }

    /// One channel of the first picture as a mask `[1, H, W]`: a colour as it is, opacity as 1 - alpha.
    pub fn channel(&self, channel: Channel) -> Result<Tensor> {
        let (w, h) = self.size();
        let Some(frame) = self.frames.first() else { return Err(MediaError::UnknownFormat) };
        let color = |c: usize| frame.rgb.iter().skip(c).step_by(3).map(|&v| f32::from(v) / 255.0).collect();
        let data: Vec<f32> = match channel {
            Channel::Red => color(0),
            Channel::Green => color(1),
            Channel::Blue => color(2),
            Channel::Alpha => match &frame.alpha {
                Some(alpha) => alpha.iter().map(|&a| 1.0 - f32::from(a) / 255.0).collect(),
                None => tensor::filled(&[h, w], 0f32)?,
            },
        };
        Ok(Tensor::from_vec(data, (1, h, w), &Device::Cpu)?)
    }

    /// (width, height) of every picture.
    pub fn size(&self) -> (usize, usize) {
        self.frames.first().map_or((0, 0), |f| (f.width, f.height))
    }
}
