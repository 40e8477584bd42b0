//! Requests that mean harm or nonsense, as data: see `testdata/api/hostile.yaml`. Each must get a clear refusal, and
//! none may reach a file outside the folders of the server.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::client::Server;
use super::script::{Content, Exchange, lay_out};
use crate::common::project;

/// What no answer may hold.
const SECRET: &str = "the secret outside";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    options: Vec<String>,
    files: HashMap<String, Content>,
    /// Names of links and where they lead.
    links: HashMap<String, String>,
    cases: Vec<Case>,
}

/// One exchange, or one for each of several texts that stand in for `{}`.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    each: Vec<String>,
    /// Statuses of the answer; any of 400 to 499 if there are none.
    #[serde(default)]
    status: Vec<u16>,
    #[serde(flatten)]
    exchange: Json,
}

impl Case {
    fn exchanges(&self) -> Vec<Exchange> {
        let parse = |exchange: Json| {
            let shown = exchange.to_string();
            serde_json::from_value(exchange).unwrap_or_else(|e| panic!("{e}: {shown}"))
        };
        if self.each.is_empty() {
            return vec![parse(self.exchange.clone())];
        }
        self.each.iter().map(|text| parse(filled(&self.exchange, text))).collect()
    }
}

/// `{}` replaced by a text; in the request line by its percent-encoding.
fn filled(exchange: &Json, text: &str) -> Json {
    match exchange {
        Json::String(template) => template.replace("{}", text).into(),
        Json::Array(items) => items.iter().map(|item| filled(item, text)).collect(),
        Json::Object(fields) => {
            let field = |(name, value): (&String, &Json)| {
                let text = if name == "do" { &encoded(text) } else { text };
                (name.clone(), filled(value, text))
            };
            Json::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

fn encoded(text: &str) -> String {
    let byte = |b: u8| {
        let plain = b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        if plain { char::from(b).to_string() } else { format!("%{b:02X}") }
    };
    text.bytes().map(byte).collect()
}

/// All files below a folder, with what they hold.
fn snapshot(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(snapshot(&path));
        } else if kind.is_file() {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
#[cfg(unix)]
fn hostile_requests_are_refused() {
    let file = std::fs::read_to_string(project("testdata/api/hostile.yaml")).unwrap();
    let suite: Suite = serde_yaml_ng::from_str(&file).unwrap();
    let outside = tempfile::tempdir().unwrap();
    lay_out(outside.path(), &HashMap::from([("secret.png".into(), Content::Text(SECRET.into()))]));
    let base = outside.path().join("base");
    lay_out(&base, &suite.files);
    for (link, target) in &suite.links {
        let link = base.join(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
    }
    let before: Vec<_> =
        snapshot(outside.path()).into_iter().filter(|(path, _)| !path.starts_with(&base)).collect();
    let options: Vec<&str> = suite.options.iter().map(String::as_str).collect();
    let server = Server::start(&base, &options);
    let (mut count, mut wrong) = (0, Vec::new());
    for case in &suite.cases {
        for exchange in case.exchanges() {
            count += 1;
            let answer = exchange.ask(&server);
            let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]);
            let expected = if case.status.is_empty() {
                (400..500).contains(&answer.status)
            } else {
                case.status.contains(&answer.status)
            };
            let leaks = answer.body.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            if !expected || leaks {
                wrong.push(format!("{exchange:?}: {} {shown}", answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 150, "there are {count} cases");
    assert_eq!(server.get("/prompt").status, 200, "the server still answers");
    let after: Vec<_> =
        snapshot(outside.path()).into_iter().filter(|(path, _)| !path.starts_with(&base)).collect();
    assert!(before == after, "nothing outside has changed");
    let made = std::fs::read_dir(outside.path()).unwrap().count();
    assert_eq!(made, 2, "nothing outside was made");
}
