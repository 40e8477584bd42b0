//! Writing JPEG files, for previews.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::{MediaError, Result};

/// An RGB picture (8 bit, interleaved) as a JPEG file, shrunk or grown bilinearly so that its longer side has `side`
/// pixels.
///
/// # Errors
/// If there are not width x height x 3 values, or a side is 0 or too long for the format.
pub fn encode_fitted(rgb: &[u8], (width, height): (usize, usize), side: u32, quality: u8) -> Result<Vec<u8>> {
    let picture = RgbImage::from_raw(width as u32, height as u32, rgb.to_vec())
        .filter(|p| p.width() > 0 && p.height() > 0)
        .ok_or_else(|| failed(format!("{} bytes are no RGB picture of {width}x{height}", rgb.len())))?;
    let longer = f64::from(picture.width().max(picture.height()));
    let fitted = |n: u32| ((f64::from(n) * f64::from(side) / longer).round() as u32).max(1);
    let (width, height) = (fitted(picture.width()), fitted(picture.height()));
    let picture = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .write_image(picture.as_raw(), width, height, ExtendedColorType::Rgb8)
        .map_err(|e| failed(e.to_string()))?;
    Ok(file)
}

fn failed(reason: String) -> MediaError {
    MediaError::Encode { format: "JPEG", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_fits() {
        let file = encode_fitted(&[200; 8 * 2 * 3], (8, 2), 512, 95).unwrap();
        let picture = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (512, 128));
        assert!(picture.as_raw().iter().all(|v| v.abs_diff(200) < 4));
        assert!(encode_fitted(&[0; 5], (8, 2), 512, 95).is_err());
        assert!(encode_fitted(&[], (0, 0), 512, 95).is_err());
    }
}
