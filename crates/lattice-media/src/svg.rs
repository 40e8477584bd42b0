//! Metadata in SVG files.

/// The document with `(key, JSON text)` pairs as one object in a `<metadata>` element right after its opening tag. A document
/// without one (or that consists of it) comes back as it is.
pub fn with_metadata(document: &str, texts: &[(String, String)]) -> String {
    let Some(at) = after_opening_tag(document).filter(|_| !texts.is_empty()) else {
        return document.to_owned();
    };
    let fields: Vec<String> = texts
        .iter()
        .map(|(key, json)| format!("{}: {json}", crate::json::ascii_json(&key.as_str().into())))
        .collect();
    // What ends the section may stand in a text: it is cut in two there.
    let object = format!("{{{}}}", fields.join(", ")).replace("]]>", "]]]]><![CDATA[>");
    let (head, tail) = document.split_at(at);
    format!("{head}<metadata><![CDATA[ {object} ]]></metadata>{tail}")
}

/// Where the content of the `<svg>` element begins.
fn after_opening_tag(document: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += document[at..].find('<')?;
        let rest = &document[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            at += 4 + comment.find("-->")?;
        } else if rest.strip_prefix("<svg").is_some_and(|r| r.starts_with([' ', '\t', '\r', '\n', '>', '/']))
        {
            break;
        } else {
            at += 1;
        }
    }
    let mut quote = None;
    for (i, c) in document[at..].char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '>') => {
                let end = at + i;
                return (!document[..end].ends_with('/')).then_some(end + 1);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<(String, String)> {
        vec![("prompt".into(), r#"{"a": "]]>"}"#.into()), ("workflow".into(), "[1]".into())]
    }

    #[test]
    fn metadata_stand_after_the_opening_tag() {
        let inside =
            r#"<metadata><![CDATA[ {"prompt": {"a": "]]]]><![CDATA[>"}, "workflow": [1]} ]]></metadata>"#;
        for (head, tail) in [
            ("<svg>", "</svg>"),
            ("<?xml version=\"1.0\"?>\n<!-- <svg> -->\n<svg a=\"x > y\" b='\">'>", "<g/></svg>"),
            ("<svgs/><svg\n>", ""),
        ] {
            assert_eq!(with_metadata(&format!("{head}{tail}"), &texts()), format!("{head}{inside}{tail}"));
        }
    }

    #[test]
    fn what_has_no_content_is_left_alone() {
        for document in ["", "<svg/>", "<svg", "<svg a='>", "<g></g>", "<!-- <svg>", "no <tags"] {
            assert_eq!(with_metadata(document, &texts()), document);
        }
        assert_eq!(with_metadata("<svg></svg>", &[]), "<svg></svg>");
    }
}
