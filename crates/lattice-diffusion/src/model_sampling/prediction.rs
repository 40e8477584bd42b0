//! What a network's output means.

use serde::{Deserialize, Serialize};

/// Meaning of the network's output; `x` is the noisy sample, `D` the denoised one, `s` sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise: D = x - s out.
    Eps,
    /// The velocity of Salimans and Ho (arXiv 2202.00512).
    #[serde(alias = "v_prediction")]
    V,
    /// The preconditioned output of Karras et al. (arXiv 2206.00364).
    Edm,
    /// The data.
    X0,
    /// The data, from an unscaled input.
    ImgToImg,
    /// The constant velocity of flow matching (arXiv 2210.02747): D = x - s out.
    Const,
    /// Rectified flow in the variance-exploding coordinates of Cosmos Predict 2.
    CosmosRflow,
    /// The noise, of a latent consistency model (arXiv 2310.04378).
    Lcm,
}
