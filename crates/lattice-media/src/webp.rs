//! Writing WEBP files, still and animated, with libwebp.

use std::borrow::Cow;

use ::webp::{AnimEncoder, AnimFrame, Encoder, PixelLayout, WebPConfig};

use crate::metadata::{riff_chunks, to_exif};
use crate::{MediaError, Pixels, Result};

/// Longest side that the format knows.
const MAX_SIDE: usize = 16_383;
/// Longest time of a frame in milliseconds.
const MAX_DURATION: u32 = (1 << 24) - 1;
/// Bits of the first byte of an extended header.
const HAS_EXIF: u8 = 0x08;
const HAS_ALPHA: u8 = 0x10;

/// How pictures are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compression {
    /// Keep every pixel.
    pub lossless: bool,
    /// 0 to 100: of the picture, or of the search where nothing is lost.
    pub quality: f32,
    /// 0 (fast) to 6 (small).
    pub method: u8,
}

/// A WEBP file of pictures of equal size, each shown for `duration` milliseconds, repeated forever; one picture makes a
/// still file. `texts` go into EXIF, see [`crate::metadata::to_exif`].
///
/// # Errors
/// If there is no picture, their sizes differ or exceed the format's, or the compression is out of range.
pub fn encode(
    pictures: &[Pixels],
    duration: u32,
    texts: &[(String, String)],
    compression: Compression,
) -> Result<Vec<u8>> {
    let first = pictures.first().ok_or_else(|| failed("no pictures"))?;
    let size = (first.width, first.height);
    if pictures.iter().any(|p| (p.width, p.height) != size) {
        return Err(failed("the pictures of an animation must have one size"));
    }
    if !(1..=MAX_SIDE).contains(&size.0) || !(1..=MAX_SIDE).contains(&size.1) {
        return Err(failed(format!(
            "a picture of {}x{} pixels does not fit, sides are 1 to {MAX_SIDE}",
            size.0, size.1
        )));
    }
    let (width, height) = (size.0 as u32, size.1 as u32);
    let mut config = WebPConfig::new().map_err(|()| failed("libwebp is of another version"))?;
    config.lossless = i32::from(compression.lossless);
    config.quality = compression.quality.clamp(0.0, 100.0);
    config.method = i32::from(compression.method.min(6));
    let samples: Vec<_> = pictures.iter().map(samples).collect::<Result<_>>()?;
    let file = if let [(samples, layout)] = samples.as_slice() {
        let encoder = Encoder::new(samples, *layout, width, height);
        encoder.encode_advanced(&config).map_err(|e| failed(format!("{e:?}")))?
    } else {
        let mut encoder = AnimEncoder::new(width, height, &config);
        for (i, (samples, layout)) in samples.iter().enumerate() {
            let time = i as u64 * u64::from(duration.min(MAX_DURATION));
            let time = i32::try_from(time).map_err(|_| failed("the animation is longer than 24 days"))?;
            encoder.add_frame(AnimFrame::new(samples, *layout, width, height, time, None));
        }
        encoder.try_encode().map_err(|e| failed(format!("{e:?}")))?
    };
    if texts.is_empty() { Ok(file.to_vec()) } else { with_exif(&file, (width, height), &to_exif(texts)) }
}

/// Samples as RGB or RGBA.
fn samples(picture: &Pixels) -> Result<(Cow<'_, [u8]>, PixelLayout)> {
    let Pixels { width, height, channels, data } = picture;
    if data.len() != width * height * channels {
        return Err(failed(format!("{} samples for {width}x{height}x{channels}", data.len())));
    }
    Ok(match channels {
        1 => (data.iter().flat_map(|&v| [v; 3]).collect(), PixelLayout::Rgb),
        2 => (data.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect(), PixelLayout::Rgba),
        3 => (data.into(), PixelLayout::Rgb),
        4 => (data.into(), PixelLayout::Rgba),
        n => return Err(failed(format!("a picture has 1 to 4 channels, not {n}"))),
    })
}

/// The file with an EXIF block at its end, which needs the extended header.
fn with_exif(file: &[u8], (width, height): (u32, u32), exif: &[u8]) -> Result<Vec<u8>> {
    let chunks: Vec<_> = riff_chunks(file.get(12..).unwrap_or_default()).collect();
    let mut out = b"RIFF\0\0\0\0WEBP".to_vec();
    let rest = match chunks.split_first() {
        Some(((kind, header), rest)) if kind == b"VP8X" && !header.is_empty() => {
            let mut header = header.to_vec();
            header[0] |= HAS_EXIF;
            push_chunk(&mut out, *kind, &header);
            rest
        }
        _ => {
            // After a byte of signature and two sizes of 14 bits a lossless stream tells whether it has opacity.
            let alpha = chunks
                .iter()
                .any(|(kind, data)| kind == b"VP8L" && data.get(4).is_some_and(|b| b & 0x10 != 0));
            let flags = HAS_EXIF | if alpha { HAS_ALPHA } else { 0 };
            let mut header = vec![flags, 0, 0, 0];
            for side in [width, height] {
                header.extend(&(side - 1).to_le_bytes()[..3]);
            }
            push_chunk(&mut out, *b"VP8X", &header);
            chunks.as_slice()
        }
    };
    for (kind, data) in rest {
        push_chunk(&mut out, *kind, data);
    }
    push_chunk(&mut out, *b"EXIF", exif);
    let length = u32::try_from(out.len() - 8).map_err(failed)?;
    out[4..8].copy_from_slice(&length.to_le_bytes());
    Ok(out)
}

fn push_chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    out.extend(kind);
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    // Chunks begin at even places.
    out.resize(out.len().next_multiple_of(2), 0);
}

fn failed(reason: impl ToString) -> MediaError {
    MediaError::encode("WEBP", reason)
}
