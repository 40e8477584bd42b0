//! `/view`: files of the roots, as they are or as pictures in another form.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::AppState;
use super::reply::{Failure, blocking};
use crate::files::{
    Channel, Disposition, FileAnswer, FileError, Folder, Preview, Root, channel, disposition, inside,
    preview, split_annotation,
};

/// Quality of previews where the request names none.
const QUALITY: u8 = 90;

#[derive(Deserialize)]
pub(super) struct What {
    filename: Option<String>,
    #[serde(rename = "type")]
    root: Option<String>,
    subfolder: Option<String>,
    channel: Option<String>,
    preview: Option<String>,
}

/// `GET /view`.
pub(super) async fn view(
    State(app): AppState,
    Query(what): Query<What>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let form = what.form();
    // Decoded pictures are large; a few at a time will do.
    let _permit = match form {
        Form::File => None,
        _ => Some(app.files.pictures.acquire().await.map_err(Failure::internal)?),
    };
    let store = app.clone();
    blocking(move || {
        let (folder, name) = what.place(&store)?;
        let path = std::path::Path::new(&name);
        match form {
            Form::File => {
                let file = folder.file(path).map_err(absent)?;
                let answer = FileAnswer { file, name, disposition: Disposition::Named };
                answer.respond(&headers).map_err(Failure::internal)
            }
            Form::Preview(how) => {
                let made = preview(&folder.read(path).map_err(absent)?, how).map_err(Failure::bad)?;
                let kind = if matches!(how, Preview::Webp { .. }) { "image/webp" } else { "image/jpeg" };
                Ok(picture(kind, &name, made))
            }
            Form::Channel(which) => {
                let made = channel(&folder.read(path).map_err(absent)?, which).map_err(Failure::bad)?;
                Ok(picture("image/png", &name, made))
            }
        }
    })
    .await
}

fn picture(kind: &'static str, name: &str, content: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition(name))];
    (headers, content).into_response()
}

fn absent(e: FileError) -> Failure {
    match e {
        FileError::Outside => Failure::Status(StatusCode::FORBIDDEN),
        FileError::System(e) => Failure::internal(e),
        _ => Failure::Status(StatusCode::NOT_FOUND),
    }
}

/// In which form a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    File,
    Preview(Preview),
    Channel(Channel),
}

impl What {
    fn form(&self) -> Form {
        if let Some(wanted) = &self.preview {
            let mut parts = wanted.split(';');
            let format = parts.next().unwrap_or_default();
            let quality =
                parts.next_back().filter(|q| !q.is_empty() && q.bytes().all(|b| b.is_ascii_digit()));
            let quality = quality.map_or(QUALITY, |q| q.parse::<u8>().unwrap_or(100).clamp(1, 100));
            let channel = self.channel.as_deref().unwrap_or_default();
            return Form::Preview(if format == "jpeg" && !channel.contains('a') {
                Preview::Jpeg { quality }
            } else {
                Preview::Webp { opaque: channel == "rgb" }
            });
        }
        match self.channel.as_deref() {
            Some("rgb") => Form::Channel(Channel::Rgb),
            Some("a") => Form::Channel(Channel::Alpha),
            _ => Form::File,
        }
    }

    /// The folder, open, and the name in it.
    fn place(&self, app: &crate::app::App) -> Result<(Folder, String), Failure> {
        let status = |code| move || Failure::Status(code);
        let filename = self.filename.as_deref().ok_or_else(status(StatusCode::NOT_FOUND))?;
        let (name, marked) = match split_annotation(filename) {
            Some((name, root)) => (name, Some(root)),
            None => (filename, None),
        };
        if name.is_empty() || name.starts_with('/') || name.contains("..") {
            return Err(Failure::Status(StatusCode::BAD_REQUEST));
        }
        let named = || Root::from_name(self.root.as_deref().unwrap_or("output"));
        let root = marked.or_else(named).ok_or_else(status(StatusCode::BAD_REQUEST))?;
        let subfolder = inside(self.subfolder.as_deref().unwrap_or_default());
        let subfolder = subfolder.ok_or_else(status(StatusCode::FORBIDDEN))?;
        let name = inside(name.rsplit('/').next().unwrap_or_default())
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .ok_or_else(status(StatusCode::BAD_REQUEST))?;
        let folder = app.files.root(root).and_then(|root| root.below(&subfolder)).map_err(absent)?;
        Ok((folder, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let form = |preview: Option<&str>, channel: Option<&str>| {
            let what = What {
                filename: None,
                root: None,
                subfolder: None,
                channel: channel.map(str::to_owned),
                preview: preview.map(str::to_owned),
            };
            what.form()
        };
        let webp = |opaque| Form::Preview(Preview::Webp { opaque });
        let jpeg = |quality| Form::Preview(Preview::Jpeg { quality });
        assert_eq!(form(None, None), Form::File);
        assert_eq!(form(None, Some("rgba")), Form::File);
        assert_eq!(form(None, Some("rgb")), Form::Channel(Channel::Rgb));
        assert_eq!(form(None, Some("a")), Form::Channel(Channel::Alpha));
        assert_eq!(form(Some("webp;50"), None), webp(false));
        assert_eq!(form(Some("jpeg"), None), jpeg(90));
        assert_eq!(form(Some("jpeg;75"), None), jpeg(75));
        assert_eq!(form(Some("jpeg;x"), None), jpeg(90));
        assert_eq!(form(Some("jpeg;0"), None), jpeg(1));
        assert_eq!(form(Some("jpeg;999"), Some("rgb")), jpeg(100));
        assert_eq!(form(Some("jpeg"), Some("rgba")), webp(false));
        assert_eq!(form(Some("gif"), Some("rgb")), webp(true));
    }
}
