//! JSON text as metadata holds it: ASCII only, `", "` and `": "` between items, numbers as Python prints them.

use std::fmt::Write;

use serde_json::Value;

/// The text of a value in the form that files made by the reference hold, so that both programs write equal bytes.
pub fn ascii_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() => out.push_str(&python_float(f)),
            _ => out.push_str(&n.to_string()),
        },
        Value::String(s) => write_text(out, s),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (key, item)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_text(out, key);
                out.push_str(": ");
                write_value(out, item);
            }
            out.push('}');
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// A float as Python's `repr` prints it: shortest digits that read back equal, with an exponent of at least two digits
/// below 1e-4 and from 1e16 on.
pub fn python_float(f: f64) -> String {
    if f.is_nan() {
        return "nan".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if f == 0.0 || (1e-4..1e16).contains(&f.abs()) {
        let text = format!("{f}");
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = format!("{f:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_ascii_and_spaced_as_the_reference_writes_it() {
        let value = json!({"a": [1, 2.5, 1e-5, 1e16, 1.0, -0.0, 0.0001], "é": "\u{1f600}\n\u{7f}\"\\", "n": null, "t": [true, {}]});
        assert_eq!(
            ascii_json(&value),
            r#"{"a": [1, 2.5, 1e-05, 1e+16, 1.0, -0.0, 0.0001], "\u00e9": "\ud83d\ude00\n\u007f\"\\", "n": null, "t": [true, {}]}"#
        );
    }

    #[test]
    fn metadata_text_reads_back_as_the_same_value() {
        let value = json!({"seed": u64::MAX, "cfg": 7.123456789012345, "text": "caf\u{e9} \u{2028}"});
        assert_eq!(serde_json::from_str::<Value>(&ascii_json(&value)).unwrap(), value);
    }
}
