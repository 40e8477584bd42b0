//! Pictures in other forms: previews, single channels, masks.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use lattice_media::{Limits, MediaError, Picture, Pixels, decode, metadata, png};

/// What decoding for a request may cost.
const LIMITS: Limits = Limits { side: 32_768, pixels: 100_000_000, total_pixels: 100_000_000 };

/// zlib level of the PNG files made here.
const PNG_LEVEL: u8 = 4;

/// Why a picture cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PictureError {
    #[error(transparent)]
    Decode(#[from] MediaError),
    #[error(transparent)]
    Encode(#[from] image::ImageError),
    #[error("the mask has {mask:?} pixels, the picture {picture:?}")]
    Sizes { mask: (usize, usize), picture: (usize, usize) },
}

type Result<T> = std::result::Result<T, PictureError>;

/// How a preview is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preview {
    /// Without loss.
    Webp {
        /// Leave the opacity out.
        opaque: bool,
    },
    /// At a quality of 1 to 100.
    Jpeg {
        /// The quality.
        quality: u8,
    },
}

/// What to show of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Rgb,
    Alpha,
}

/// The first picture of a file.
fn first(file: &[u8]) -> Result<Picture> {
    let frames = decode::decode(file, LIMITS)?.frames;
    Ok(frames.into_iter().next().ok_or(MediaError::UnknownFormat)?)
}

/// Width and height of a picture file.
pub(crate) fn picture_size(file: &[u8]) -> Result<(u32, u32)> {
    let reader = image::ImageReader::new(std::io::Cursor::new(file)).with_guessed_format();
    Ok(reader.map_err(image::ImageError::IoError)?.into_dimensions()?)
}

/// A smaller form of a picture file.
pub(crate) fn preview(file: &[u8], how: Preview) -> Result<Vec<u8>> {
    let picture = first(file)?;
    // The decoder has checked the size.
    let (width, height) = (picture.width as u32, picture.height as u32);
    let mut encoded = Vec::new();
    match how {
        Preview::Jpeg { quality } => JpegEncoder::new_with_quality(&mut encoded, quality).write_image(
            &picture.rgb,
            width,
            height,
            ExtendedColorType::Rgb8,
        )?,
        Preview::Webp { opaque } => {
            let encoder = WebPEncoder::new_lossless(&mut encoded);
            if opaque || picture.alpha.is_none() {
                encoder.write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)?;
            } else {
                encoder.write_image(&rgba(&picture, |rgb| rgb), width, height, ExtendedColorType::Rgba8)?;
            }
        }
    }
    Ok(encoded)
}

/// One side of a picture file as PNG: its colours as if opaque, or its opacity over black.
pub(crate) fn channel(file: &[u8], channel: Channel) -> Result<Vec<u8>> {
    let picture = first(file)?;
    let (channels, data) = match channel {
        Channel::Alpha => (4, rgba(&picture, |_| [0; 3])),
        Channel::Rgb => (3, picture.rgb),
    };
    let pixels = Pixels { width: picture.width, height: picture.height, channels, data };
    Ok(png::encode(&pixels, &[], PNG_LEVEL)?)
}

/// `original` with the opacity of `mask`, as PNG with the texts of the original.
pub(crate) fn with_alpha_of(original: &[u8], mask: &[u8]) -> Result<Vec<u8>> {
    let (mut picture, mask) = (first(original)?, first(mask)?);
    let size = |picture: &Picture| (picture.width, picture.height);
    if size(&picture) != size(&mask) {
        return Err(PictureError::Sizes { mask: size(&mask), picture: size(&picture) });
    }
    picture.alpha = mask.alpha;
    let data = rgba(&picture, |rgb| rgb);
    let pixels = Pixels { width: picture.width, height: picture.height, channels: 4, data };
    let texts = if original.starts_with(b"\x89PNG") { metadata::read(original) } else { Vec::new() };
    Ok(png::encode(&pixels, &texts, PNG_LEVEL)?)
}

/// Colours through `colour`, and the opacity: 255 where the picture says nothing of it.
fn rgba(picture: &Picture, colour: impl Fn([u8; 3]) -> [u8; 3]) -> Vec<u8> {
    let (colours, _) = picture.rgb.as_chunks::<3>();
    let alpha = picture.alpha.iter().flatten().copied().chain(std::iter::repeat(255));
    let pixel = |(&rgb, alpha): (&[u8; 3], u8)| {
        let [r, g, b] = colour(rgb);
        [r, g, b, alpha]
    };
    colours.iter().zip(alpha).flat_map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(channels: usize, data: &[u8], texts: &[(String, String)]) -> Vec<u8> {
        let pixels = Pixels { width: data.len() / channels, height: 1, channels, data: data.to_vec() };
        png::encode(&pixels, texts, 1).unwrap()
    }

    #[test]
    fn channels_are_told_apart() {
        let file = png_of(4, &[1, 2, 3, 0, 4, 5, 6, 200], &[]);
        let rgb = first(&channel(&file, Channel::Rgb).unwrap()).unwrap();
        assert_eq!((rgb.rgb, rgb.alpha), (vec![1, 2, 3, 4, 5, 6], None));
        let alpha = first(&channel(&file, Channel::Alpha).unwrap()).unwrap();
        assert_eq!((alpha.rgb, alpha.alpha), (vec![0; 6], Some(vec![0, 200])));
        let opaque = png_of(3, &[1, 2, 3], &[]);
        let alpha = first(&channel(&opaque, Channel::Alpha).unwrap()).unwrap();
        assert_eq!((alpha.rgb, alpha.alpha), (vec![0; 3], Some(vec![255])));
    }

    #[test]
    fn previews_keep_the_picture() {
        let file = png_of(4, &[10, 20, 30, 255, 40, 50, 60, 128], &[]);
        let webp = preview(&file, Preview::Webp { opaque: false }).unwrap();
        assert_eq!((picture_size(&file).unwrap(), picture_size(&webp).unwrap()), ((2, 1), (2, 1)));
        let webp = first(&webp).unwrap();
        assert_eq!((webp.rgb, webp.alpha), (vec![10, 20, 30, 40, 50, 60], Some(vec![255, 128])));
        let opaque = first(&preview(&file, Preview::Webp { opaque: true }).unwrap()).unwrap();
        assert_eq!(opaque.alpha, None);
        let jpeg = preview(&file, Preview::Jpeg { quality: 90 }).unwrap();
        assert!(jpeg.starts_with(&[0xff, 0xd8, 0xff]));
        assert!(preview(b"text", Preview::Jpeg { quality: 90 }).is_err());
    }

    #[test]
    fn masks_become_the_opacity() {
        let texts = [("prompt".to_owned(), "{}".to_owned())];
        let original = png_of(3, &[1, 2, 3, 4, 5, 6], &texts);
        let mask = png_of(4, &[0, 0, 0, 9, 0, 0, 0, 255], &[]);
        let made = with_alpha_of(&original, &mask).unwrap();
        let picture = first(&made).unwrap();
        assert_eq!((picture.rgb, picture.alpha), (vec![1, 2, 3, 4, 5, 6], Some(vec![9, 255])));
        assert_eq!(metadata::read(&made), texts);
        assert!(with_alpha_of(&original, &png_of(4, &[0; 4], &[])).is_err());
    }

    #[test]
    fn pictures_beyond_the_limits_are_refused() {
        // A header that claims 100,000 x 100,000 pixels.
        let mut file = png_of(1, &[0], &[]);
        file[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        assert!(preview(&file, Preview::Webp { opaque: false }).is_err());
    }
}
