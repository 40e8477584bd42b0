//! Forms of requests and answers, for the description of the routes. What is read and written is in the modules beside
//! this one.
#![expect(dead_code, reason = "these types describe and are never made")]

use serde_json::Value as Json;
use utoipa::ToSchema;

/// A request for pictures. Templates may know further fields.
#[derive(ToSchema)]
pub(super) struct ImageRequest {
    /// What to draw.
    prompt: String,
    /// Name of the template; `default` without.
    model: Option<String>,
    /// How many pictures.
    #[schema(minimum = 1, maximum = 10)]
    n: Option<u64>,
    /// `WIDTHxHEIGHT`, or `auto` for what the template has.
    size: Option<String>,
    /// A drawn one without.
    seed: Option<u64>,
    /// `url` or `b64_json`.
    response_format: Option<String>,
    /// `png`, `jpeg` or `webp`.
    output_format: Option<String>,
    /// Quality of JPEG files.
    #[schema(maximum = 100)]
    output_compression: Option<u64>,
    /// `auto` or `opaque`.
    background: Option<String>,
    /// Answer with Server-Sent Events: pictures on the way (`image_generation.partial_image`), then those that are
    /// done (`image_generation.completed`), or `error`.
    stream: Option<bool>,
    /// How many pictures on the way are wanted.
    #[schema(maximum = 3)]
    partial_images: Option<u64>,
}

/// Pictures.
#[derive(ToSchema)]
pub(super) struct ImageAnswer {
    /// When, in seconds since the epoch.
    created: u64,
    data: Vec<ImageMade>,
    output_format: String,
    /// What the same pictures are had again with.
    seed: u64,
    /// Id of the history entry.
    prompt_id: String,
}

/// A picture, in one of two ways.
#[derive(ToSchema)]
pub(super) struct ImageMade {
    /// Where it is.
    url: Option<String>,
    /// The file.
    b64_json: Option<String>,
}

/// Names of templates.
#[derive(ToSchema)]
pub(super) struct ModelList {
    /// `list`
    object: String,
    data: Vec<Model>,
}

/// A template.
#[derive(ToSchema)]
pub(super) struct Model {
    id: String,
    /// `model`
    object: String,
    created: u64,
    owned_by: String,
}

/// Why there is no picture, in the form of OpenAI's API.
#[derive(ToSchema)]
pub(super) struct ApiProblem {
    error: ApiProblemError,
}

/// The reason.
#[derive(ToSchema)]
pub(super) struct ApiProblemError {
    message: String,
    /// Kind, for programs.
    r#type: String,
    /// The field of the request that is wrong.
    #[schema(value_type = Option<String>)]
    param: Json,
    /// A word for programs.
    #[schema(value_type = Option<String>)]
    code: Json,
}
