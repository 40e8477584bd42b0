//! What comes back: pictures, or where they are.

use std::path::PathBuf;

use axum::http::{HeaderMap, header};
use base64::Engine;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};

use super::request::{Format, Request};
use super::{ApiError, Result, now};
use crate::app::App;
use crate::files::{Channel, Root, channel, inside, picture_size, preview};

/// Where clients reach the server.
#[derive(Clone, Debug)]
pub(super) struct Place(String);

impl Place {
    /// As the request names it.
    pub(super) fn of(app: &App, headers: &HeaderMap) -> Self {
        let scheme = if app.options.tls.is_some() { "https" } else { "http" };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // A client that names no host gets a path.
        Self(host.map_or_else(String::new, |host| format!("{scheme}://{host}")))
    }
}

/// A picture file that a prompt has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    filename: String,
    subfolder: String,
    root: String,
}

impl Made {
    /// The pictures of a history entry: results, or previews where there is nothing else.
    pub(super) fn all(entry: &Json) -> Vec<Self> {
        let text = |image: &Json, key: &str| image[key].as_str().map(str::to_owned);
        let one = |image: &Json| {
            let (filename, subfolder) = (text(image, "filename")?, text(image, "subfolder")?);
            Some(Self { filename, subfolder, root: text(image, "type")? })
        };
        let outputs = entry["outputs"].as_object().into_iter().flatten();
        let images = outputs.filter_map(|(_, output)| output["images"].as_array()).flatten();
        let made: Vec<Self> = images.filter_map(one).collect();
        let results: Vec<Self> = made.iter().filter(|made| made.root == "output").cloned().collect();
        if results.is_empty() { made } else { results }
    }

    /// Where it can be had.
    fn url(&self, place: &Place, format: Format) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let Self { filename, subfolder, root } = self;
        let form = match format {
            Format::Png => String::new(),
            Format::Jpeg { quality } => format!("&preview=jpeg%3B{quality}"),
            Format::Webp => "&preview=webp".into(),
        };
        let (filename, subfolder) = (encoded(filename), encoded(subfolder));
        format!("{}/view?filename={filename}&subfolder={subfolder}&type={root}{form}", place.0)
    }

    /// Its root and its path there.
    fn path(&self) -> Option<(Root, PathBuf)> {
        let path = inside(&format!("{}/{}", self.subfolder, self.filename));
        let path = path.or_else(|| inside(&self.filename).filter(|_| self.subfolder.is_empty()))?;
        Some((Root::from_name(&self.root)?, path))
    }

    /// Whether the file exists still.
    pub(super) fn is_there(&self, app: &App) -> bool {
        let there = |(root, path): (Root, PathBuf)| app.files.root(root).is_ok_and(|root| root.exists(&path));
        self.path().is_some_and(there)
    }

    fn read(&self, app: &App) -> Result<Vec<u8>> {
        let (root, path) =
            self.path().ok_or_else(|| ApiError::internal(format!("{self:?} names no file")))?;
        Ok(app.files.root(root)?.read(&path)?)
    }
}

/// A picture file in the form that was asked for.
fn convert(file: Vec<u8>, format: Format) -> Result<Vec<u8>> {
    Ok(match format.preview() {
        Some(how) => preview(&file, how)?,
        None if file.starts_with(b"\x89PNG") => file,
        None => channel(&file, Channel::Rgb)?,
    })
}

fn base64(file: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(file)
}

/// The answer when all is there.
pub(super) fn whole(
    app: &App,
    request: &Request,
    prompt_id: &str,
    made: &[Made],
    place: &Place,
) -> Result<Json> {
    let one = |made: &Made| -> Result<Json> {
        Ok(if request.inline {
            json!({ "b64_json": base64(&convert(made.read(app)?, request.format)?) })
        } else {
            json!({ "url": made.url(place, request.format) })
        })
    };
    Ok(json!({
        "created": now(),
        "data": made.iter().map(one).collect::<Result<Vec<Json>>>()?,
        "output_format": request.format.name(),
        // Not in OpenAI's answer: what the same picture is had again with, and its history entry found.
        "seed": request.seed,
        "prompt_id": prompt_id,
    }))
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) event: &'static str,
    pub(super) data: Json,
}

/// A picture on the way.
pub(super) fn partial(request: &Request, index: u64, file: Vec<u8>) -> Result<Message> {
    let mut message = picture("image_generation.partial_image", request, file)?;
    message.data["partial_image_index"] = index.into();
    Ok(message)
}

/// A picture that is done.
pub(super) fn completed(app: &App, request: &Request, prompt_id: &str, made: &Made) -> Result<Message> {
    let mut message = picture("image_generation.completed", request, made.read(app)?)?;
    // Nothing is counted here, but there are clients that add it up.
    message.data["usage"] = json!({
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "input_tokens_details": { "text_tokens": 0, "image_tokens": 0 },
    });
    message.data["seed"] = request.seed.into();
    message.data["prompt_id"] = prompt_id.into();
    Ok(message)
}

/// What tells that no more pictures come.
pub(super) fn failed(error: &ApiError) -> Message {
    Message { event: "error", data: json!({ "type": "error", "error": error.document() }) }
}

fn picture(event: &'static str, request: &Request, file: Vec<u8>) -> Result<Message> {
    let file = convert(file, request.format)?;
    let (width, height) = picture_size(&file)?;
    let data = json!({
        "type": event,
        "b64_json": base64(&file),
        "created_at": now(),
        "size": format!("{width}x{height}"),
        "quality": "auto",
        "background": "opaque",
        "output_format": request.format.name(),
    });
    Ok(Message { event, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_before_previews() {
        let image = |name: &str, root: &str| json!({"filename": name, "subfolder": "s", "type": root});
        let entry = json!({"outputs": {
            "1": {"images": [image("t", "temp")]},
            "2": {"text": ["x"]},
            "3": {"images": [image("a b", "output"), image("c", "output")]},
        }});
        let names = |entry: &Json| Made::all(entry).into_iter().map(|m| m.filename).collect::<Vec<_>>();
        assert_eq!(names(&entry), ["a b", "c"]);
        assert_eq!(names(&json!({"outputs": {"1": {"images": [image("t", "temp")]}}})), ["t"]);
        assert!(names(&json!({})).is_empty());
        let place = Place("http://h:1".into());
        assert_eq!(
            Made::all(&entry)[0].url(&place, Format::Jpeg { quality: 80 }),
            "http://h:1/view?filename=a%20b&subfolder=s&type=output&preview=jpeg%3B80"
        );
    }
}
