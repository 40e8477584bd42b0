//! Conversions, comparison and texts of literals as Python makes them: clients see them in errors, and prompts rely
//! on them (`"16"` is a width, `1`, `1.0` and `true` are the same value).

use std::cmp::Ordering;

use serde_json::{Number, Value as Json};

/// `str(value)`.
pub(crate) fn text(value: &Json) -> String {
    match value {
        Json::String(s) => s.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Number(n) => number(n),
        Json::String(s) => quoted(s),
        Json::Array(list) => format!("[{}]", list.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", quoted(k), repr(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn number(n: &Number) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() => float_repr(f),
        _ => n.to_string(),
    }
}

/// Shortest digits that read back the same; exponents below 1e-4 and from 1e16 on.
fn float_repr(f: f64) -> String {
    if f == 0.0 || (1e-4..1e16).contains(&f.abs()) {
        return format!("{f:?}");
    }
    let scientific = format!("{f:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn quoted(s: &str) -> String {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\x{:02x}", c as u32).chars()),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "NoneType",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float",
        Json::Number(_) => "int",
        Json::String(_) => "str",
        Json::Array(_) => "list",
        Json::Object(_) => "dict",
    }
}

/// `int(value)`; integers beyond 64 bits stay floats, which only a range test looks at.
pub(crate) fn int(value: &Json) -> Result<Json, String> {
    match value {
        Json::Bool(b) => Ok(Json::from(u8::from(*b))),
        Json::Number(n) => {
            Ok(n.as_f64().filter(|_| n.is_f64()).map_or_else(|| value.clone(), |f| whole(f.trunc())))
        }
        Json::String(s) => {
            parse_int(s).ok_or_else(|| format!("invalid literal for int() with base 10: {}", quoted(s)))
        }
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

fn parse_int(s: &str) -> Option<Json> {
    let digits = without_underscores(s.trim())?;
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match digits.parse::<i128>() {
        Ok(i) => Some(
            i64::try_from(i)
                .map(Json::from)
                .or_else(|_| u64::try_from(i).map(Json::from))
                .unwrap_or_else(|_| whole(i as f64)),
        ),
        Err(_) => digits.parse::<f64>().ok().filter(|f| f.is_finite()).map(Json::from),
    }
}

/// Underscores may stand between digits.
fn without_underscores(s: &str) -> Option<String> {
    let misplaced = s.starts_with('_') || s.ends_with('_') || s.contains("__");
    (!misplaced).then(|| s.replace('_', ""))
}

fn whole(f: f64) -> Json {
    if (-9.2e18..9.2e18).contains(&f) {
        Json::from(f as i64)
    } else if (0.0..18_446_744_073_709_551_616.0).contains(&f) {
        Json::from(f as u64)
    } else {
        Json::from(f)
    }
}

/// `float(value)`. NaN and infinities, which JSON cannot hold, are refused.
pub(crate) fn float(value: &Json) -> Result<Json, String> {
    match value {
        Json::Bool(b) => Ok(Json::from(f64::from(u8::from(*b)))),
        Json::Number(n) => {
            n.as_f64().map(Json::from).ok_or_else(|| "int too large to convert to float".to_owned())
        }
        Json::String(s) => without_underscores(s.trim())
            .and_then(|s| s.parse::<f64>().ok())
            .filter(|f| f.is_finite())
            .map(Json::from)
            .ok_or_else(|| format!("could not convert string to float: {}", quoted(s))),
        other => {
            Err(format!("float() argument must be a string or a real number, not '{}'", type_name(other)))
        }
    }
}

/// `bool(value)`.
pub(crate) fn truth(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(b) => *b,
        Json::Number(n) => n.as_f64() != Some(0.0),
        Json::String(s) => !s.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

/// `a < b`, `a == b` or `a > b` between numbers (booleans among them), exact for 64-bit integers.
pub(crate) fn compare(a: &Json, b: &Json) -> Option<Ordering> {
    let integer = |v: &Json| match v {
        Json::Bool(b) => Some(i128::from(*b)),
        Json::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)),
        _ => None,
    };
    let real = |v: &Json| v.as_f64().or_else(|| v.as_bool().map(|b| f64::from(u8::from(b))));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => real(a)?.partial_cmp(&real(b)?),
    }
}

/// `a == b`.
pub(crate) fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (Json::String(a), Json::String(b)) => a == b,
        (Json::Null, Json::Null) => true,
        _ => compare(a, b) == Some(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts() {
        for (value, expected) in [
            (json!(null), "None"),
            (json!([true, 1, 1.0, "it's", {"a": "b\n"}]), r#"[True, 1, 1.0, "it's", {'a': 'b\n'}]"#),
            (json!(1e16), "1e+16"),
            (json!(1e-5), "1e-05"),
            (json!(123_456_789.125), "123456789.125"),
            (json!(1.5e-7), "1.5e-07"),
            (json!(0.0), "0.0"),
        ] {
            assert_eq!(repr(&value), expected);
        }
    }

    #[test]
    fn integers() {
        for (value, expected) in [
            (json!("16"), json!(16)),
            (json!(" -1_000 "), json!(-1000)),
            (json!(8.9), json!(8)),
            (json!(-8.9), json!(-8)),
            (json!(true), json!(1)),
            (json!(u64::MAX), json!(u64::MAX)),
            (json!("18446744073709551615"), json!(u64::MAX)),
        ] {
            assert_eq!(int(&value), Ok(expected));
        }
        for value in [json!(""), json!("_1"), json!("1__0"), json!("1.5"), json!("+"), json!(null), json!([])]
        {
            assert!(int(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn equality_crosses_number_types() {
        assert!(equal(&json!([1, {"a": true}]), &json!([1.0, {"a": 1}])));
        assert!(!equal(&json!("1"), &json!(1)));
        assert!(!equal(&json!(u64::MAX), &json!(u64::MAX - 1)));
    }
}
