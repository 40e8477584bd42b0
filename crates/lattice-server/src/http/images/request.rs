//! What a program asks for.

use serde_json::{Map, Value as Json, json};

use super::{ApiError, Result};
use crate::files::Preview;
use crate::template::{DEFAULT, Template};

/// Most pictures of one request.
const MAX_PICTURES: u64 = 10;

/// Most pictures on the way to the last.
const MAX_PARTIAL: u64 = 3;

/// Seeds that are drawn are whole numbers that any JSON reader can hold.
const SEED_BITS: u32 = 53;

/// Fields of OpenAI's API that ask for nothing that could be had here.
const IGNORED: [&str; 4] = ["user", "quality", "style", "moderation"];

/// A request for pictures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// Name of the template.
    pub(super) model: String,
    /// Send pictures as they come.
    pub(super) stream: bool,
    /// How many pictures are wanted on the way to the last.
    pub(super) partial_images: u64,
    /// Send pictures rather than where they are.
    pub(super) inline: bool,
    pub(super) format: Format,
    /// The seed.
    pub(super) seed: u64,
    prompt: String,
    count: u64,
    size: Option<(u64, u64)>,
    seed_given: bool,
    /// Further fields, which only the template knows.
    others: Map<String, Json>,
}

/// A form of picture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As the workflow saves them.
    Png,
    Jpeg {
        quality: u8,
    },
    Webp,
}

impl Format {
    /// As requests name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg { .. } => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// How it is made of another one; None for PNG.
    pub(super) fn preview(self) -> Option<Preview> {
        match self {
            Self::Png => None,
            Self::Jpeg { quality } => Some(Preview::Jpeg { quality }),
            Self::Webp => Some(Preview::Webp { opaque: false }),
        }
    }
}

/// Fields, taken one after the other.
struct Fields(Map<String, Json>);

impl Fields {
    /// One that is there and not null.
    fn take(&mut self, name: &str) -> Option<Json> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::refused(format!("'{name}' must be a text."), Some(name))),
        }
    }

    fn whole(&mut self, name: &str, from: u64, to: u64) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| (from..=to).contains(number));
        let wrong =
            || ApiError::refused(format!("'{name}' must be a whole number from {from} to {to}."), Some(name));
        number.map(Some).ok_or_else(wrong)
    }

    fn choice(&mut self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = choices.iter().find(|choice| **choice == text);
        let wrong = || {
            let choices = choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
            ApiError::refused(format!("'{name}' must be one of {choices}."), Some(name))
        };
        found.copied().map(Some).ok_or_else(wrong)
    }
}

impl Request {
    /// Reads a request.
    pub(super) fn parse(body: Json) -> Result<Self> {
        let Json::Object(fields) = body else {
            return Err(ApiError::refused("The body must be a JSON object.", None));
        };
        let mut fields = Fields(fields);
        let prompt = fields.text("prompt")?.filter(|prompt| !prompt.is_empty());
        let prompt = prompt.ok_or_else(|| ApiError::refused("'prompt' is required.", Some("prompt")))?;
        let stream = match fields.take("stream") {
            None => false,
            Some(Json::Bool(stream)) => stream,
            Some(_) => return Err(ApiError::refused("'stream' must be true or false.", Some("stream"))),
        };
        let partial_images = fields.whole("partial_images", 0, MAX_PARTIAL)?;
        let compression = fields.whole("output_compression", 0, 100)?.unwrap_or(100);
        let format = match fields.choice("output_format", &["png", "jpeg", "webp"])? {
            Some("jpeg") => Format::Jpeg { quality: compression.max(1) as u8 },
            Some("webp") => Format::Webp,
            _ => Format::Png,
        };
        if fields.choice("background", &["auto", "opaque", "transparent"])? == Some("transparent") {
            let message = "Transparent backgrounds are not supported; a template may make them by itself.";
            return Err(ApiError::refused(message, Some("background")));
        }
        let seed = fields.whole("seed", 0, u64::MAX)?;
        let request = Self {
            model: fields.text("model")?.unwrap_or_else(|| DEFAULT.to_owned()),
            stream,
            partial_images: if stream { partial_images.unwrap_or(MAX_PARTIAL) } else { 0 },
            inline: fields.choice("response_format", &["url", "b64_json"])? == Some("b64_json"),
            format,
            seed: seed.unwrap_or_else(random_seed),
            seed_given: seed.is_some(),
            prompt,
            count: fields.whole("n", 1, MAX_PICTURES)?.unwrap_or(1),
            size: fields.text("size")?.map(|text| size(&text)).transpose()?.flatten(),
            others: {
                fields.0.retain(|name, value| !value.is_null() && !IGNORED.contains(&name.as_str()));
                fields.0
            },
        };
        Ok(request)
    }

    /// The template's prompt with what was asked for in it.
    pub(super) fn fill(&self, template: &mut Template) -> Result<()> {
        let unbound = |field: &str, what: &str| {
            ApiError::refused(format!("The model '{}' has {what}.", self.model), Some(field))
        };
        if let Some((width, height)) = self.size {
            if !(template.binds("width") && template.binds("height")) {
                return Err(unbound("size", "pictures of one size only"));
            }
            template.set("width", &json!(width));
            template.set("height", &json!(height));
        }
        if self.count > 1 && !template.binds("n") {
            return Err(unbound("n", "one picture at a time only"));
        }
        if self.seed_given && !template.binds("seed") {
            return Err(unbound("seed", "no seed"));
        }
        if let Some(name) = self.others.keys().find(|name| !template.binds(name)) {
            let known = template.fields().collect::<Vec<_>>().join(", ");
            let message = format!("Unknown parameter: '{name}'. The model '{}' knows {known}.", self.model);
            return Err(ApiError::refused(message, Some(name)).coded("unknown_parameter"));
        }
        template.set("n", &json!(self.count));
        template.set("seed", &json!(self.seed));
        template.set("prompt", &json!(self.prompt));
        for (name, value) in &self.others {
            // A list of two would be a link into the workflow.
            if value.is_array() || value.is_object() {
                let message = format!("'{name}' must be a text, a number, or true or false.");
                return Err(ApiError::refused(message, Some(name)));
            }
            template.set(name, value);
        }
        Ok(())
    }
}

/// `WIDTHxHEIGHT`; None for `auto`, which leaves it to the template.
fn size(text: &str) -> Result<Option<(u64, u64)>> {
    if text == "auto" {
        return Ok(None);
    }
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let wrong =
        || ApiError::refused("'size' must be WIDTHxHEIGHT, such as 512x512, or 'auto'.", Some("size"));
    sides.map(Some).ok_or_else(wrong)
}

fn random_seed() -> u64 {
    (uuid::Uuid::new_v4().as_u128() as u64) >> (u64::BITS - SEED_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(body: Json) -> Json {
        Request::parse(body).unwrap_err().document()["param"].clone()
    }

    #[test]
    fn what_is_left_out_has_a_usual_value() {
        let request =
            Request::parse(json!({"prompt": "a", "n": null, "user": "x", "quality": "hd"})).unwrap();
        assert_eq!((request.model.as_str(), request.count, request.size), ("default", 1, None));
        assert!(!request.stream && !request.inline && request.others.is_empty());
        assert!(request.seed < 1 << SEED_BITS);
        let stream = Request::parse(json!({"prompt": "a", "stream": true, "size": "auto"})).unwrap();
        assert_eq!((stream.partial_images, stream.size), (MAX_PARTIAL, None));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (field, value) in [
            ("prompt", json!("")),
            ("prompt", json!(["a"])),
            ("n", json!(0)),
            ("n", json!(11)),
            ("n", json!(1.5)),
            ("size", json!("large")),
            ("size", json!("512")),
            ("size", json!("-1x5")),
            ("size", json!(512)),
            ("seed", json!(-1)),
            ("seed", json!("5")),
            ("stream", json!("yes")),
            ("partial_images", json!(4)),
            ("response_format", json!("png")),
            ("output_format", json!("gif")),
            ("output_compression", json!(101)),
            ("background", json!("transparent")),
            ("model", json!(5)),
        ] {
            let mut body = json!({"prompt": "a"});
            body[field] = value;
            assert_eq!(param(body.clone()), field, "{body}");
        }
        assert_eq!(param(json!({})), "prompt");
        assert_eq!(param(json!([])), Json::Null);
    }
}
