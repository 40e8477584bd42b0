//! What the tensors of a family do not show, and the types that say it.

use std::sync::Arc;

use lattice_kernels::StoredDType;

/// A family of diffusion networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Stable Diffusion 1.x, inpainting and instruct variants among them.
    Sd1,
    /// Stable Diffusion 2.x.
    Sd2,
    /// SDXL base and its distillations of the same layout.
    Sdxl,
    /// SDXL refiner.
    SdxlRefiner,
    /// Stable Diffusion 3 and 3.5.
    Sd3,
    /// Flux with distilled guidance.
    Flux,
    /// Flux without guidance input.
    FluxSchnell,
    /// HunyuanVideo.
    HunyuanVideo,
    /// Mochi.
    Mochi,
    /// LTX-Video.
    LtxVideo,
    /// Wan 2.1.
    Wan21,
}

impl Family {
    /// Its name as users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd1 => "Stable Diffusion 1.x",
            Self::Sd2 => "Stable Diffusion 2.x",
            Self::Sdxl => "SDXL",
            Self::SdxlRefiner => "SDXL refiner",
            Self::Sd3 => "Stable Diffusion 3",
            Self::Flux => "Flux",
            Self::FluxSchnell => "Flux schnell",
            Self::HunyuanVideo => "HunyuanVideo",
            Self::Mochi => "Mochi",
            Self::LtxVideo => "LTX-Video",
            Self::Wan21 => "Wan 2.1",
        }
    }
}

/// What the network's output means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prediction {
    /// The noise.
    Eps,
    /// The velocity of Salimans & Ho 2022.
    V,
    /// The preconditioned output of Karras et al. 2022.
    Edm,
    /// The velocity of flow matching (Lipman et al. 2022).
    Flow,
}

/// Noise levels of the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Square roots of the betas linear between the roots of these, over 1000 steps.
    ScaledLinear {
        /// First beta.
        start: f64,
        /// Last beta.
        end: f64,
        /// Whether the table is rescaled so that the last step has no signal (Lin et al. 2023).
        zero_terminal_snr: bool,
    },
    /// A continuous range of sigmas.
    Continuous {
        /// Smallest sigma.
        sigma_min: f64,
        /// Largest sigma.
        sigma_max: f64,
        /// Standard deviation of the data.
        sigma_data: f64,
    },
    /// sigma = s t / (1 + (s - 1) t); the network's timestep is sigma times the multiplier.
    Flow {
        /// s.
        shift: f64,
        /// What the network's timestep is multiplied by.
        multiplier: f64,
    },
    /// sigma = e^m / (e^m + 1/t - 1) (Flux); the network's timestep is sigma.
    ExponentialFlow {
        /// m.
        shift: f64,
    },
}

impl Schedule {
    /// That of Stable Diffusion.
    pub const STABLE_DIFFUSION: Self =
        Self::ScaledLinear { start: 0.00085, end: 0.012, zero_terminal_snr: false };
}

/// Scale and shift between the VAE's latents and the network's, by the name that latent formats go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LatentFormat {
    /// 4 channels, 0.18215.
    Sd15,
    /// 4 channels, 0.13025.
    Sdxl,
    /// 4 channels with mean and deviation per channel.
    SdxlPlayground25,
    /// 16 channels, 1.5305 and 0.0609.
    Sd3,
    /// 16 channels, 0.3611 and 0.1159.
    Flux,
    /// 16 channels, 0.476986.
    HunyuanVideo,
    /// 12 channels with mean and deviation per channel.
    Mochi,
    /// 128 channels, normalised inside the VAE.
    Ltxv,
    /// 16 channels with mean and deviation per channel.
    Wan21,
}

impl LatentFormat {
    /// Its name in tables of latent formats.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd15 => "SD15",
            Self::Sdxl => "SDXL",
            Self::SdxlPlayground25 => "SDXL_Playground_2_5",
            Self::Sd3 => "SD3",
            Self::Flux => "Flux",
            Self::HunyuanVideo => "HunyuanVideo",
            Self::Mochi => "Mochi",
            Self::Ltxv => "LTXV",
            Self::Wan21 => "Wan21",
        }
    }
}

/// What samplers, conditioning and memory planning must know of a diffusion model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Family.
    pub family: Family,
    /// Meaning of the output.
    pub prediction: Prediction,
    /// Noise levels.
    pub schedule: Schedule,
    /// Scale of latents.
    pub latent_format: LatentFormat,
    /// Channels of the network's input; more than its output's where conditions are joined on (inpainting).
    pub in_channels: usize,
    /// Channels of the network's output, which are those of the noise.
    pub out_channels: usize,
    /// Width of the text states, if it reads any.
    pub context_width: Option<usize>,
    /// Width of the vector condition, if it reads one.
    pub vector_width: Option<usize>,
    /// Whether it has an input for distilled guidance.
    pub guidance: bool,
    /// Working memory of one forward call in MiB per 1024 latent cells and byte of precision, relative to Stable Diffusion 1.x.
    pub memory_factor: f64,
    /// Storage type that most elements have.
    pub dtype: StoredDType,
    /// How the pictures that an unCLIP model reads were normalised in training, if the file says so.
    pub picture_statistics: Option<Arc<PictureStatistics>>,
}

/// Mean and standard deviation of each value of a vision tower's embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureStatistics {
    /// Means.
    pub mean: Vec<f32>,
    /// Standard deviations.
    pub deviation: Vec<f32>,
}
