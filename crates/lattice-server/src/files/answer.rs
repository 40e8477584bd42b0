//! Files as answers: types, names, parts, and whether the client has it already.

use std::io::{Read, Seek, SeekFrom};
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use cap_std::fs::File;
use tokio_util::io::ReaderStream;

/// Bytes per read.
const CHUNK: usize = 64 << 10;

/// Types that a browser would run or show as a page.
const ACTIVE: [&str; 6] = [
    "text/html",
    "application/xhtml+xml",
    "text/javascript",
    "application/javascript",
    "text/xml",
    "application/xml",
];

/// How a file is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Content of users: named, and nothing in it is run.
    Named,
    /// Content of users, without a name: nothing in it is run.
    Plain,
    /// Part of our own pages.
    Page,
}

/// A file to answer with.
pub(crate) struct FileAnswer {
    pub(crate) file: File,
    pub(crate) name: String,
    pub(crate) disposition: Disposition,
}

impl FileAnswer {
    /// The answer to a request with these headers.
    pub(crate) fn respond(self, request: &HeaderMap) -> std::io::Result<Response> {
        let metadata = self.file.metadata()?;
        let size = metadata.len();
        let modified = metadata.modified()?.into_std();
        let tag = tag(modified, size);
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        set(headers, header::ETAG, &tag);
        set(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
        set(headers, header::ACCEPT_RANGES, "bytes");
        if unchanged(request, &tag, modified) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        self.describe(headers);
        let (start, end) = match range(request, size, &tag, modified) {
            Range::All => (0, size),
            Range::Part(start, end) => {
                set(headers, header::CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end - 1));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                (start, end)
            }
            Range::Unsatisfiable => {
                set(headers, header::CONTENT_RANGE, &format!("bytes */{size}"));
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
        };
        set(response.headers_mut(), header::CONTENT_LENGTH, &(end - start).to_string());
        *response.body_mut() = body(self.file, start, end - start)?;
        Ok(response)
    }

    fn describe(&self, headers: &mut HeaderMap) {
        let guess = mime_guess::from_path(&self.name).first_raw().unwrap_or("application/octet-stream");
        let refused = match self.disposition {
            Disposition::Page => false,
            // Front ends take their users' style sheets from where these keep their files.
            Disposition::Plain => ACTIVE.contains(&guess),
            Disposition::Named => ACTIVE.contains(&guess) || guess == "text/css",
        };
        let kind = if refused { "application/octet-stream" } else { guess };
        let text = kind.starts_with("text/") || kind == "application/json";
        set(
            headers,
            header::CONTENT_TYPE,
            &if text { format!("{kind}; charset=utf-8") } else { kind.to_owned() },
        );
        if self.disposition == Disposition::Page {
            return;
        }
        // Shown by itself, a drawing or a document of a user's is a page without rights.
        set(
            headers,
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'; style-src 'unsafe-inline'",
        );
        if kind == "image/svg+xml" {
            set(headers, header::CONTENT_DISPOSITION, &format!("attachment; {}", disposition(&self.name)));
        } else if self.disposition == Disposition::Named {
            set(headers, header::CONTENT_DISPOSITION, &disposition(&self.name));
        }
    }
}

/// `filename="..."`, in ASCII and, where that is not enough, as UTF-8 too.
pub(crate) fn disposition(name: &str) -> String {
    let safe = |c: char| if c == '"' || c == '\\' || !(' '..='~').contains(&c) { '_' } else { c };
    let ascii: String = name.chars().map(safe).collect();
    if ascii == name {
        return format!("filename=\"{ascii}\"");
    }
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn tag(modified: SystemTime, size: u64) -> String {
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("\"{:x}-{size:x}\"", since.as_nanos())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn unchanged(request: &HeaderMap, tag: &str, modified: SystemTime) -> bool {
    if let Some(tags) = text(request, header::IF_NONE_MATCH) {
        return tags.split(',').map(str::trim).any(|t| t == "*" || t.trim_start_matches("W/") == tag);
    }
    let since = text(request, header::IF_MODIFIED_SINCE).and_then(|t| httpdate::parse_http_date(t).ok());
    // The header counts whole seconds.
    since.is_some_and(|since| whole_seconds(modified) <= whole_seconds(since))
}

fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    All,
    /// From the first byte up to before the second.
    Part(u64, u64),
    Unsatisfiable,
}

/// The one range that a request asks for; several at once are answered with the whole file, as the standard allows.
fn range(request: &HeaderMap, size: u64, tag: &str, modified: SystemTime) -> Range {
    let Some(wanted) = text(request, header::RANGE).and_then(|r| r.strip_prefix("bytes=")) else {
        return Range::All;
    };
    let current = text(request, header::IF_RANGE).is_none_or(|condition| {
        condition == tag
            || httpdate::parse_http_date(condition)
                .is_ok_and(|date| whole_seconds(date) == whole_seconds(modified))
    });
    let Some((start, end)) = wanted.trim().split_once('-').filter(|_| current && !wanted.contains(','))
    else {
        return Range::All;
    };
    let (start, end) = match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => (start, end.saturating_add(1).min(size)),
        (Ok(start), Err(_)) if end.is_empty() => (start, size),
        (Err(_), Ok(last)) if start.is_empty() => (size.saturating_sub(last), size),
        _ => return Range::All,
    };
    if start < end { Range::Part(start, end) } else { Range::Unsatisfiable }
}

fn body(file: File, start: u64, length: u64) -> std::io::Result<Body> {
    let mut file = file.into_std();
    file.seek(SeekFrom::Start(start))?;
    if length <= CHUNK as u64 {
        let mut content = Vec::with_capacity(length as usize);
        file.take(length).read_to_end(&mut content)?;
        return Ok(Body::from(content));
    }
    let reader = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), length);
    Ok(Body::from_stream(ReaderStream::with_capacity(reader, CHUNK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (wanted, expected) in [
            ("bytes=0-3", Range::Part(0, 4)),
            ("bytes=3-", Range::Part(3, 10)),
            ("bytes=-4", Range::Part(6, 10)),
            ("bytes=-100", Range::Part(0, 10)),
            ("bytes=5-100", Range::Part(5, 10)),
            ("bytes=10-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=4-3", Range::All),
            ("bytes=0-1,3-4", Range::All),
            ("bytes=x-y", Range::All),
            ("lines=0-1", Range::All),
            ("bytes=18446744073709551615-18446744073709551615", Range::Unsatisfiable),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(wanted).unwrap());
            assert_eq!(range(&headers, 10, "\"t\"", SystemTime::UNIX_EPOCH), expected, "{wanted}");
            headers.insert(header::IF_RANGE, HeaderValue::from_static("\"other\""));
            assert_eq!(range(&headers, 10, "\"t\"", SystemTime::UNIX_EPOCH), Range::All, "{wanted}");
        }
    }

    #[test]
    fn names_in_headers() {
        assert_eq!(disposition("a b.png"), "filename=\"a b.png\"");
        assert_eq!(disposition("a\"\r\nü"), "filename=\"a____\"; filename*=UTF-8''a%22%0D%0A%C3%BC");
    }
}
