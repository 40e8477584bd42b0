//! Writing PNG files.

use ::png::{BitDepth, ColorType, Compression, DeflateCompression, Encoder, Filter};

use crate::{MediaError, Pixels, Result};

/// A PNG file of one picture, with `(keyword, text)` metadata as uncompressed `tEXt` chunks right after the header (or
/// `iTXt` where a text is not Latin-1), and a zlib level of 0 to 9.
///
/// # Errors
/// If the picture has no pixels or a keyword is not one that PNG allows (1 to 79 Latin-1 characters).
pub fn encode(picture: &Pixels, texts: &[(String, String)], level: u8) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = encoder(&mut file, picture, level)?;
    for (keyword, text) in texts {
        let latin1 = text.chars().all(|c| u32::from(c) < 256);
        let add = if latin1 { Encoder::add_text_chunk } else { Encoder::add_itxt_chunk };
        add(&mut encoder, keyword.clone(), text.clone()).map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&picture.data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// An encoder set up for pictures of that size.
pub(crate) fn encoder<'a>(
    file: &'a mut Vec<u8>,
    picture: &Pixels,
    level: u8,
) -> Result<Encoder<'a, &'a mut Vec<u8>>> {
    let size = |n: usize| u32::try_from(n).map_err(failed);
    let mut encoder = Encoder::new(file, size(picture.width)?, size(picture.height)?);
    encoder.set_color(match picture.channels {
        1 => ColorType::Grayscale,
        2 => ColorType::GrayscaleAlpha,
        3 => ColorType::Rgb,
        4 => ColorType::Rgba,
        n => return Err(failed(format!("a picture has 1 to 4 channels, not {n}"))),
    });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_filter(Filter::Adaptive);
    encoder.set_deflate_compression(match level {
        0 => DeflateCompression::NoCompression,
        n => DeflateCompression::Level(n.min(9)),
    });
    Ok(encoder)
}

pub(crate) fn failed(reason: impl ToString) -> MediaError {
    MediaError::encode("PNG", reason)
}
