//! Reading PNG files, sample by sample as the bit depths and transparency chunks ask.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{AnimationDecoder, codecs::png::PngDecoder};
use png::{BitDepth, ColorType, Decoder, Transformations};

use crate::{Limits, MediaError, Picture, Result};

/// The pictures of a PNG: one, or the frames of an animation.
pub(crate) fn frames(file: &[u8], limits: Limits) -> Result<Vec<Picture>> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: usize::MAX });
    decoder.set_transformations(Transformations::EXPAND);
    // Metadata is read elsewhere; a broken text is no reason to refuse the picture.
    decoder.set_ignore_text_chunk(true);
    let header = decoder.read_header_info().map_err(broken)?;
    limits.check(header.size())?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let orientation = info.exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    let transparency = info.trns.is_some();
    let source = info.color_type;
    let animated = info.animation_control.is_some_and(|a| a.num_frames > 1);

    let mut pictures = if animated {
        let alpha = transparency || matches!(source, ColorType::GrayscaleAlpha | ColorType::Rgba);
        animated_frames(file, limits, alpha)?
    } else {
        let size = reader.output_buffer_size().ok_or_else(|| broken("impossible size"))?;
        let mut buffer = crate::tensor::filled(&[size], 0u8)?;
        let frame = reader.next_frame(&mut buffer).map_err(broken)?;
        let gray16 = source == ColorType::Grayscale && frame.bit_depth == BitDepth::Sixteen;
        let samples = if frame.bit_depth == BitDepth::Sixteen { narrow(&buffer, gray16) } else { buffer };
        vec![picture(frame.width as usize, frame.height as usize, frame.color_type, &samples)?]
    };
    for picture in &mut pictures {
        picture.color_key = transparency && source != ColorType::Indexed;
        picture.orient(orientation.unwrap_or(Orientation::NoTransforms));
    }
    Ok(pictures)
}

fn broken(reason: impl ToString) -> MediaError {
    MediaError::broken("PNG", reason)
}

fn animated_frames(file: &[u8], limits: Limits, alpha: bool) -> Result<Vec<Picture>> {
    let decoder = PngDecoder::new(Cursor::new(file)).map_err(broken)?;
    let mut budget = limits.total_pixels;
    let mut pictures = Vec::new();
    for frame in decoder.apng().map_err(broken)?.into_frames() {
        let image = frame.map_err(broken)?.into_buffer();
        let size = u64::from(image.width()) * u64::from(image.height());
        budget =
            budget.checked_sub(size).ok_or_else(|| limits.exceeded(image.dimensions(), "too many frames"))?;
        let mut picture = Picture::from_dynamic(image.into());
        picture.alpha = picture.alpha.filter(|_| alpha);
        pictures.push(picture);
    }
    Ok(pictures)
}

/// 16-bit samples as 8-bit ones. Grey alone is taken as a wide integer, divided by 255 and cut to the range; everything
/// else keeps the upper byte.
fn narrow(wide: &[u8], gray: bool) -> Vec<u8> {
    let samples = wide.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    if gray {
        samples.map(|v| (f64::from(v) * (1.0 / 255.0)).min(255.0) as u8).collect()
    } else {
        samples.map(|v| (v >> 8) as u8).collect()
    }
}

fn picture(width: usize, height: usize, color: ColorType, samples: &[u8]) -> Result<Picture> {
    let pixels = |n: usize| samples.chunks_exact(n).take(width * height);
    let (rgb, alpha): (Vec<u8>, Option<Vec<u8>>) = match color {
        ColorType::Grayscale => (pixels(1).flat_map(|p| [p[0]; 3]).collect(), None),
        ColorType::GrayscaleAlpha => {
            (pixels(2).flat_map(|p| [p[0]; 3]).collect(), Some(pixels(2).map(|p| p[1]).collect()))
        }
        ColorType::Rgb => (pixels(3).flatten().copied().collect(), None),
        ColorType::Rgba => {
            (pixels(4).flat_map(|p| [p[0], p[1], p[2]]).collect(), Some(pixels(4).map(|p| p[3]).collect()))
        }
        ColorType::Indexed => return Err(broken("palette missing")),
    };
    if rgb.len() != width * height * 3 {
        return Err(broken("picture cut off"));
    }
    Ok(Picture { width, height, rgb, alpha, color_key: false })
}
