//! Exchanges with a server as data: what is sent, and what must come back.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tungstenite::Message;

use super::client::{Answer, Server, Socket};
use super::pattern;

/// Separates the parts of a form.
const BOUNDARY: &str = "----a-boundary-of-the-tests";

/// A request, and what its answer must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exchange {
    /// Method and path.
    #[serde(rename = "do")]
    pub(super) request: String,
    #[serde(default)]
    pub(super) headers: Map<String, Json>,
    /// A JSON body.
    pub(super) json: Option<Json>,
    /// A body as it stands here.
    pub(super) body: Option<Content>,
    /// A body of several parts.
    pub(super) form: Option<Vec<Part>>,
    #[serde(default = "ok")]
    pub(super) status: u16,
    /// The answer's JSON, a pattern.
    pub(super) equals: Option<Json>,
    /// The answer's text.
    pub(super) text: Option<String>,
    /// Headers of the answer; null where there must be none.
    #[serde(default)]
    pub(super) head: Map<String, Json>,
    /// Red, green, blue and opacity of the picture that comes back.
    pub(super) pixels: Option<Vec<u8>>,
}

fn ok() -> u16 {
    200
}

/// A part of a form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    name: String,
    filename: Option<String>,
    #[serde(default)]
    content: Content,
}

/// Content of a file or a part.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    /// A one-row PNG of RGBA pixels, with texts.
    Png {
        png: Vec<u8>,
        #[serde(default)]
        texts: Map<String, Json>,
    },
    Base64 {
        base64: String,
    },
    Repeat {
        repeat: String,
        times: usize,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Content {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Png { png, texts } => {
                let pixels =
                    lattice_media::Pixels { width: png.len() / 4, height: 1, channels: 4, data: png.clone() };
                let texts: Vec<(String, String)> =
                    texts.iter().map(|(key, text)| (key.clone(), text.as_str().unwrap().into())).collect();
                lattice_media::png::encode(&pixels, &texts, 1).unwrap()
            }
            Self::Base64 { base64 } => base64::engine::general_purpose::STANDARD.decode(base64).unwrap(),
            Self::Repeat { repeat, times } => repeat.repeat(*times).into_bytes(),
        }
    }
}

/// A step of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Step {
    Exchange(Box<Exchange>),
    /// Opens a socket.
    Connect {
        connect: String,
    },
    Send {
        send: String,
        message: Json,
    },
    /// The next messages on a socket, patterns.
    Hear {
        hear: String,
        messages: Vec<Json>,
    },
    /// Waits until a prompt has ended.
    Ended {
        ended: String,
    },
    /// A file must hold this.
    File {
        file: String,
        holds: String,
    },
    /// A file must not be there.
    Absent {
        absent: String,
    },
}

/// A server, and what happens on it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    pub(super) name: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    files: HashMap<String, Content>,
    steps: Vec<Step>,
}

/// Writes files below a folder.
pub(super) fn lay_out(base: &Path, files: &HashMap<String, Content>) {
    for (path, content) in files {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.bytes()).unwrap();
    }
}

impl Scenario {
    pub(super) fn run(&self) {
        let base = tempfile::tempdir().unwrap();
        lay_out(base.path(), &self.files);
        let home = base.path().to_string_lossy().into_owned();
        let mut options: Vec<String> =
            self.options.iter().map(|option| option.replace("<base>", &home)).collect();
        options.push("--memory-queue".into());
        let server = Server::start(base.path(), &options.iter().map(String::as_str).collect::<Vec<_>>());
        let mut sockets = HashMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            let place = format!("{}, step {}", self.name, index + 1);
            step.run(&server, &mut sockets, base.path(), &place);
        }
    }
}

impl Step {
    fn run(&self, server: &Server, sockets: &mut HashMap<String, Socket>, base: &Path, place: &str) {
        match self {
            Self::Exchange(exchange) => exchange.check(server, &exchange.ask(server), base, place),
            Self::Connect { connect } => {
                sockets.insert(connect.clone(), server.socket(connect));
            }
            Self::Send { send, message } => {
                let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
                sockets.get_mut(send).unwrap().send(&text);
            }
            Self::Hear { hear, messages } => {
                let socket = sockets.get_mut(hear).unwrap();
                for (index, expected) in messages.iter().enumerate() {
                    let got = readable(socket.next());
                    pattern::check(&got, expected, &format!("{place}, message {}", index + 1));
                }
            }
            Self::Ended { ended } => {
                server.ended(ended);
            }
            Self::File { file, holds } => {
                let found = std::fs::read_to_string(base.join(file));
                assert_eq!(found.ok().as_deref(), Some(holds.as_str()), "{place}: {file}");
            }
            Self::Absent { absent } => assert!(!base.join(absent).exists(), "{place}: {absent}"),
        }
    }
}

impl Exchange {
    /// Sends the request.
    pub(super) fn ask(&self, server: &Server) -> Answer {
        let (method, path) = self.request.split_once(' ').expect("a method and a path");
        let mut headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| {
                (name.clone(), value.as_str().unwrap().replace("<address>", &server.address))
            })
            .collect();
        let body = match (&self.json, &self.body, &self.form) {
            (Some(json), ..) => json.to_string().into_bytes(),
            (_, Some(body), _) => body.bytes(),
            (.., Some(parts)) => {
                let kind = format!("multipart/form-data; boundary={BOUNDARY}");
                headers.push(("Content-Type".into(), kind));
                form(parts)
            }
            _ => Vec::new(),
        };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        server.request(method, path, &headers, &body)
    }

    fn check(&self, server: &Server, answer: &Answer, base: &Path, place: &str) {
        let place = format!("{place}: {}", self.request);
        let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(2000)]);
        assert_eq!(answer.status, self.status, "{place}: {shown}");
        if let Some(expected) = &self.equals {
            let text = expected.to_string().replace("<base>", &base.to_string_lossy());
            pattern::check(&answer.json(), &serde_json::from_str(&text).unwrap(), &place);
        }
        if let Some(expected) = &self.text {
            assert_eq!(shown, expected.as_str(), "{place}");
        }
        for (name, expected) in &self.head {
            let expected = expected.as_str().map(|text| text.replace("<address>", &server.address));
            match expected.as_deref() {
                Some("<any>") => assert!(answer.header(name).is_some(), "{place}: {name}"),
                expected => assert_eq!(answer.header(name), expected, "{place}: {name}"),
            }
        }
        if let Some(expected) = &self.pixels {
            assert_eq!(&rgba(&answer.body), expected, "{place}");
        }
    }
}

fn form(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let file = part.filename.as_ref().map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{}\"{file}\r\n\r\n", part.name);
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&part.content.bytes());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The pixels of a picture file.
fn rgba(file: &[u8]) -> Vec<u8> {
    let decoded = lattice_media::decode::decode(file, lattice_media::Limits::default()).unwrap();
    let picture = &decoded.frames[0];
    let alpha = picture.alpha.clone().unwrap_or_else(|| vec![255; picture.rgb.len() / 3]);
    picture.rgb.chunks(3).zip(alpha).flat_map(|(rgb, alpha)| [rgb[0], rgb[1], rgb[2], alpha]).collect()
}

/// A message as JSON; binary ones taken apart.
fn readable(message: Message) -> Json {
    let bytes = match message {
        Message::Binary(bytes) => bytes,
        text => return serde_json::from_str(text.to_text().unwrap()).unwrap(),
    };
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let size = |picture: &[u8]| {
        let decoded = lattice_media::decode::decode(picture, lattice_media::Limits::default()).unwrap();
        json!([decoded.frames[0].width, decoded.frames[0].height])
    };
    match number(0) {
        1 => json!({ "binary": 1, "format": number(4), "size": size(&bytes[8..]) }),
        kind => {
            let (head, rest) = bytes[8..].split_at(number(4) as usize);
            match kind {
                3 => json!({
                    "binary": 3,
                    "node": std::str::from_utf8(head).unwrap(),
                    "text": std::str::from_utf8(rest).unwrap(),
                }),
                4 => json!({
                    "binary": 4,
                    "metadata": serde_json::from_slice::<Json>(head).unwrap(),
                    "size": size(rest),
                }),
                other => json!({ "binary": other }),
            }
        }
    }
}
