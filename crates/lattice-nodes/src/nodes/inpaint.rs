//! Pictures of which a part is to be made anew.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::conditioning::edit::with_options;
use lattice_graph::Node;
use lattice_media::resize::{Crop, Method, common_upscale};

use crate::Result;
use crate::node::node;
use crate::types::{Conditioning, Image, Latent, Mask, Vae, crop_to_multiple};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![vae_encode_for_inpaint, inpaint_model_conditioning, instruct_pix_to_pix_conditioning]
}

/// Encodes pictures for inpainting from scratch: what the mask covers becomes grey, and only that is sampled anew.
#[node(
    name = "VAEEncodeForInpaint",
    title = "VAE Encode (for Inpainting)",
    category = "latent/inpaint",
    module = "nodes"
)]
fn vae_encode_for_inpaint(
    pixels: Image,
    vae: Vae,
    mask: Mask,
    #[widget(default = 6, min = 0, max = 64, step = 1)] grow_mask_by: usize,
) -> Result<Latent> {
    let inpaint = Inpaint::new(&pixels, &mask, vae.network().spatial_factor())?;
    let samples = vae.encode(&inpaint.greyed()?)?;
    let noise_mask = Some(dilate(&rounded(&inpaint.mask)?, grow_mask_by)?);
    Ok(Latent { noise_mask, ..Latent::new(samples) })
}

/// Shows an inpainting model what to keep, and where to paint.
#[node(
    name = "InpaintModelConditioning",
    title = "InpaintModelConditioning",
    category = "conditioning/inpaint",
    module = "nodes",
    outputs("positive", "negative", "latent")
)]
fn inpaint_model_conditioning(
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    pixels: Image,
    mask: Mask,
    /// Also limit sampling to the mask. Inpainting models may do without it.
    #[widget(default = true)]
    noise_mask: bool,
) -> Result<(Conditioning, Conditioning, Latent)> {
    let inpaint = Inpaint::new(&pixels, &mask, 8)?;
    let kept = vae.encode(&inpaint.greyed()?)?;
    let show = |list: &Conditioning| {
        Conditioning(with_options(&list.0, |options| {
            options.concat_latent = Some(kept.clone());
            options.concat_mask = Some(inpaint.mask.clone());
        }))
    };
    let latent = Latent {
        noise_mask: noise_mask.then(|| inpaint.mask.clone()),
        ..Latent::new(vae.encode(&inpaint.pixels)?)
    };
    Ok((show(&positive), show(&negative), latent))
}

/// Shows an instruct model the picture that it is to change.
#[node(
    name = "InstructPixToPixConditioning",
    category = "conditioning/instructpix2pix",
    module = "comfy_extras.nodes_ip2p",
    outputs("positive", "negative", "latent"),
    v3
)]
fn instruct_pix_to_pix_conditioning(
    #[widget] positive: Conditioning,
    #[widget] negative: Conditioning,
    #[widget] vae: Vae,
    #[widget] pixels: Image,
) -> Result<(Conditioning, Conditioning, Latent)> {
    let picture = vae.encode(&crop_to_multiple(&pixels.0, 8)?)?;
    let show = |list: &Conditioning| {
        Conditioning(with_options(&list.0, |options| options.concat_latent = Some(picture.clone())))
    };
    Ok((show(&positive), show(&negative), Latent::new(picture.zeros_like()?)))
}

/// Pictures and a mask of one size.
struct Inpaint {
    /// [B, H, W, C].
    pixels: Tensor,
    /// [B or 1, 1, H, W].
    mask: Tensor,
}

impl Inpaint {
    /// The mask is resized to the pictures, then both are cut around the centre to multiples of `factor`.
    fn new(pixels: &Image, mask: &Mask, factor: usize) -> Result<Self> {
        let (_, height, width, _) = pixels.0.dims4()?;
        let mask = common_upscale(&mask.planes()?, width, height, Method::Bilinear, Crop::Disabled)?;
        let mask = crop_to_multiple(&mask.permute((0, 2, 3, 1))?, factor)?.permute((0, 3, 1, 2))?;
        Ok(Self { pixels: crop_to_multiple(&pixels.0, factor)?, mask: mask.contiguous()? })
    }

    /// The pictures with grey (0.5) where the mask rounds to 1.
    fn greyed(&self) -> Result<Tensor> {
        let keep = rounded(&self.mask)?.affine(-1.0, 1.0)?.permute((0, 2, 3, 1))?;
        Ok((self.pixels.affine(1.0, -0.5)?.broadcast_mul(&keep)? + 0.5)?)
    }
}

/// 0 or 1; a half is 0, as it is the nearest even number.
fn rounded(mask: &Tensor) -> candle_core::Result<Tensor> {
    mask.gt(0.5f64)?.to_dtype(mask.dtype())
}

/// Greatest value in a box of `size` x `size` around each cell of [B, 1, H, W]; the box of an even size reaches further
/// up and left. Sizes 0 and 1 change nothing.
fn dilate(mask: &Tensor, size: usize) -> candle_core::Result<Tensor> {
    if size < 2 {
        return Ok(mask.clone());
    }
    let (before, after) = (size / 2, size - 1 - size / 2);
    let along = |mask: &Tensor, axis: usize| {
        let length = mask.dim(axis)?;
        let padded = mask.pad_with_zeros(axis, before, after)?;
        (1..size).try_fold(padded.narrow(axis, 0, length)?, |most, shift| {
            most.maximum(&padded.narrow(axis, shift, length)?)
        })
    };
    along(&along(mask, 2)?, 3)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_box_of_even_size_reaches_further_up_and_left() {
        let mut cells = [0f32; 49];
        cells[3 * 7 + 3] = 1.0;
        let mask = Tensor::from_slice(&cells, (1, 1, 7, 7), &Device::Cpu).unwrap();
        for (size, reached) in [(0, 3..4), (1, 3..4), (2, 3..5), (3, 2..5), (4, 2..6), (9, 0..7)] {
            let grown = dilate(&mask, size).unwrap().reshape((7, 7)).unwrap().to_vec2::<f32>().unwrap();
            for (y, row) in grown.iter().enumerate() {
                for (x, &v) in row.iter().enumerate() {
                    let inside = reached.contains(&y) && reached.contains(&x);
                    assert_eq!(v, f32::from(u8::from(inside)), "size {size} at {y}, {x}");
                }
            }
        }
    }

    #[test]
    fn masks_are_cut_and_resized_as_the_pictures() {
        let pixels = Image(Tensor::ones((2, 17, 26, 3), candle_core::DType::F32, &Device::Cpu).unwrap());
        let mask = Mask(Tensor::ones((5, 4), candle_core::DType::F32, &Device::Cpu).unwrap());
        let inpaint = Inpaint::new(&pixels, &mask, 8).unwrap();
        assert_eq!((inpaint.pixels.dims(), inpaint.mask.dims()), (&[2, 16, 24, 3][..], &[1, 1, 16, 24][..]));
        let grey = inpaint.greyed().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grey.iter().all(|&v| v == 0.5));
    }
}
