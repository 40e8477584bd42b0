//! Writing animated PNG files.

use crate::png::{encoder, failed};
use crate::{Pixels, Result};

/// An animated PNG of pictures of equal size, each shown for `duration` milliseconds, repeated forever. A picture equal
/// to the one before it only lengthens that one's time. `texts` go into `comf` chunks (keyword, NUL, text) after the
/// image data.
///
/// # Errors
/// If there is no picture or their sizes differ.
pub fn encode_png(
    pictures: &[Pixels],
    duration: u64,
    texts: &[(String, String)],
    level: u8,
) -> Result<Vec<u8>> {
    let mut frames: Vec<(&Pixels, u64)> = Vec::new();
    for picture in pictures {
        match frames.last_mut() {
            Some((last, time)) if *last == picture => *time = time.saturating_add(duration),
            _ => frames.push((picture, duration)),
        }
    }
    let &(first, time) = frames.first().ok_or_else(|| failed("no pictures"))?;
    if frames
        .iter()
        .any(|(p, _)| (p.width, p.height, p.channels) != (first.width, first.height, first.channels))
    {
        return Err(failed("the pictures of an animation must have one size"));
    }
    let mut file = Vec::new();
    let mut encoder = encoder(&mut file, first, level)?;
    if frames.len() > 1 {
        encoder.set_animated(u32::try_from(frames.len()).map_err(failed)?, 0).map_err(failed)?;
        let (numerator, denominator) = delay(time);
        encoder.set_frame_delay(numerator, denominator).map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    for (i, (picture, time)) in frames.into_iter().enumerate() {
        if i > 0 {
            let (numerator, denominator) = delay(time);
            writer.set_frame_delay(numerator, denominator).map_err(failed)?;
        }
        writer.write_image_data(&picture.data).map_err(failed)?;
    }
    for (keyword, text) in texts {
        let data = [keyword.as_bytes(), b"\0", text.as_bytes()].concat();
        writer.write_chunk(::png::chunk::ChunkType(*b"comf"), &data).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// Milliseconds as the 16-bit fraction of a second that a frame holds.
fn delay(milliseconds: u64) -> (u16, u16) {
    let fraction = [1000u16, 100, 10, 1].into_iter().find_map(|denominator| {
        let numerator = u16::try_from(milliseconds / u64::from(1000 / denominator)).ok()?;
        Some((numerator, denominator))
    });
    fraction.unwrap_or((u16::MAX, 1))
}
