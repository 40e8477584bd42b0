//! Animated WEBP files: frames laid over each other as libwebp does it (WebP Container Specification, Google; libwebp's
//! `anim_decode.c` for the rounding). The image library blends opaque pixels too, which makes them darker by a level.

use std::io::Cursor;

use image::DynamicImage;
use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;

use crate::{Limits, MediaError, Picture, Result};

/// Bytes of a frame's header: place, size, duration and flags.
const FRAME_HEADER: usize = 16;
/// RGBA.
const SAMPLES: usize = 4;

fn broken(reason: impl ToString) -> MediaError {
    MediaError::broken("WEBP", reason)
}

/// Chunks one after another: four letters and the content. What is cut off at the end is left out.
fn chunks(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (name, rest) = bytes.split_at_checked(4)?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        let (content, rest) = rest.split_at_checked(size)?;
        bytes = rest.get(size % 2..).unwrap_or_default();
        Some((name, content))
    })
}

/// A rectangle of the canvas and what to do with it.
struct Frame<'a> {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// Whether it is laid over what is there; else it takes its place.
    blend: bool,
    /// Whether the rectangle is transparent after it was shown.
    dispose: bool,
    /// Chunks of the picture.
    content: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(chunk: &'a [u8]) -> Result<Self> {
        let (header, content) =
            chunk.split_at_checked(FRAME_HEADER).ok_or_else(|| broken("a frame is cut off"))?;
        let number = |at: usize| {
            usize::from(header[at]) | usize::from(header[at + 1]) << 8 | usize::from(header[at + 2]) << 16
        };
        Ok(Self {
            left: 2 * number(0),
            top: 2 * number(3),
            width: number(6) + 1,
            height: number(9) + 1,
            blend: header[15] & 2 == 0,
            dispose: header[15] & 1 != 0,
            content,
        })
    }

    fn covers(&self, (width, height): (usize, usize)) -> bool {
        (self.left, self.top, self.width, self.height) == (0, 0, width, height)
    }

    /// The frame's own pixels, RGBA, and whether it has an alpha channel.
    fn pixels(&self) -> Result<(Vec<u8>, bool)> {
        let file = self.still();
        let decoder = WebPDecoder::new(Cursor::new(&file)).map_err(broken)?;
        if decoder.dimensions() != (self.width as u32, self.height as u32) {
            return Err(broken("a frame is of another size than it says"));
        }
        let alpha = decoder.color_type().has_alpha();
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
        Ok((image.into_rgba8().into_raw(), alpha))
    }

    /// The frame as a file of its own.
    fn still(&self) -> Vec<u8> {
        const HAS_ALPHA: u8 = 0x10;
        let mut body = b"WEBP".to_vec();
        if chunks(self.content).any(|(name, _)| name == b"ALPH") {
            body.extend(b"VP8X");
            body.extend(10u32.to_le_bytes());
            body.extend([HAS_ALPHA, 0, 0, 0]);
            for side in [self.width, self.height] {
                body.extend(&(side as u32 - 1).to_le_bytes()[..3]);
            }
        }
        for (name, content) in chunks(self.content) {
            if [&b"ALPH"[..], b"VP8 ", b"VP8L"].contains(&name) {
                body.extend(name);
                body.extend((content.len() as u32).to_le_bytes());
                body.extend(content);
                body.resize(body.len() + content.len() % 2, 0);
            }
        }
        let mut file = b"RIFF".to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(body);
        file
    }
}

/// What is shown after each frame of an animation of that size. `alpha` says whether opacity counts.
pub(crate) fn frames(file: &[u8], size: (u32, u32), alpha: bool, limits: Limits) -> Result<Vec<Picture>> {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut canvas = crate::tensor::filled(&[width * height * SAMPLES], 0u8)?;
    let (mut pictures, mut budget) = (Vec::new(), limits.total_pixels);
    // The frame before, and whether it was a key frame: one that does not depend on those before it.
    let mut before: Option<(Frame<'_>, bool)> = None;
    for (_, chunk) in chunks(file.get(12..).unwrap_or_default()).filter(|(name, _)| *name == b"ANMF") {
        let frame = Frame::read(chunk)?;
        if frame.left + frame.width > width || frame.top + frame.height > height {
            return Err(broken("a frame reaches over the edge"));
        }
        budget = budget
            .checked_sub(width as u64 * height as u64)
            .ok_or_else(|| limits.exceeded(size, "too many frames"))?;
        let (pixels, has_alpha) = frame.pixels()?;
        if let Some((last, _)) = before.as_ref().filter(|(last, _)| last.dispose) {
            for row in rows(last, width) {
                canvas[row].fill(0);
            }
        }
        let key = match &before {
            None => true,
            Some((last, was_key)) => {
                (!(frame.blend && has_alpha) && frame.covers((width, height)))
                    || (last.dispose && (*was_key || last.covers((width, height))))
            }
        };
        if key {
            canvas.fill(0);
        }
        let laid_over = frame.blend && !key;
        for (row, source) in rows(&frame, width).zip(pixels.chunks_exact(frame.width * SAMPLES)) {
            for (below, pixel) in canvas[row].chunks_exact_mut(SAMPLES).zip(source.chunks_exact(SAMPLES)) {
                let blended = if laid_over && pixel[3] != u8::MAX { over(pixel, below) } else { None };
                below.copy_from_slice(blended.as_ref().map_or(pixel, |b| &b[..]));
            }
        }
        let mut picture = picture(&canvas, width, height);
        picture.alpha = picture.alpha.filter(|_| alpha);
        pictures.push(picture);
        before = Some((frame, key));
    }
    Ok(pictures)
}

/// The samples of each row of a frame in a canvas of that width.
fn rows(frame: &Frame<'_>, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let (left, columns) = (frame.left, frame.width);
    (frame.top..frame.top + frame.height).map(move |y| {
        let start = (y * width + left) * SAMPLES;
        start..start + columns * SAMPLES
    })
}

/// A pixel over another, RGBA that is not premultiplied; the integer arithmetic is libwebp's.
fn over(pixel: &[u8], below: &[u8]) -> Option<[u8; SAMPLES]> {
    let alpha = u32::from(*pixel.get(3)?);
    if alpha == 0 {
        return below.try_into().ok();
    }
    let kept = (u32::from(*below.get(3)?) * (256 - alpha)) >> 8;
    let sum = alpha + kept;
    let scale = (1 << 24) / sum;
    let channel =
        |c: usize| (((u32::from(pixel[c]) * alpha + u32::from(below[c]) * kept) * scale) >> 24) as u8;
    Some([channel(0), channel(1), channel(2), sum as u8])
}

fn picture(rgba: &[u8], width: usize, height: usize) -> Picture {
    Picture {
        width,
        height,
        rgb: rgba.chunks_exact(SAMPLES).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        alpha: Some(rgba.chunks_exact(SAMPLES).map(|p| p[3]).collect()),
        color_key: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending() {
        assert_eq!(over(&[9, 8, 7, 0], &[1, 2, 3, 4]), Some([1, 2, 3, 4]));
        // Half of white over black: (255 * 128) * floor(2^24 / 255) / 2^24, cut off.
        assert_eq!(over(&[255, 255, 255, 128], &[0, 0, 0, 255]), Some([127, 127, 127, 255]));
        assert_eq!(over(&[200, 0, 0, 100], &[0, 0, 0, 0]), Some([199, 0, 0, 100]));
    }

    #[test]
    fn chunks_that_are_cut_off_are_left_out() {
        let bytes = b"ABCD\x03\0\0\0xyz\0EFGH\x01\0\0\0q\0IJKL\xff\0\0\0z";
        let found: Vec<_> = chunks(bytes).collect();
        assert_eq!(found, [(&b"ABCD"[..], &b"xyz"[..]), (&b"EFGH"[..], &b"q"[..])]);
    }
}
