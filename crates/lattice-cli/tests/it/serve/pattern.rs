//! JSON with places left open: `<any>`, `<int>`, `<number>`, `<text>`, `<uuid>`, `<hex32>`; an object with the key
//! `<rest>` may have more keys than those it names, and `{"<unordered>": [...]}` is a list in any order.

use serde_json::Value as Json;

/// Fails unless `got` is what `expected` describes.
pub(super) fn check(got: &Json, expected: &Json, place: &str) {
    assert!(matches(got, expected), "{place}\n got {got:#}\n expected {expected:#}");
}

fn matches(got: &Json, expected: &Json) -> bool {
    match (got, expected) {
        (got, Json::String(open)) if open.starts_with('<') && open.ends_with('>') => fits(got, open),
        // 1 and 1.0 are equal to clients.
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(got), Json::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| matches(g, e))
        }
        (Json::Array(got), Json::Object(fields)) => match fields.get("<unordered>") {
            Some(Json::Array(expected)) => {
                got.len() == expected.len() && expected.iter().all(|e| got.iter().any(|g| matches(g, e)))
            }
            _ => false,
        },
        (Json::Object(got), Json::Object(expected)) => {
            let open = expected.contains_key("<rest>");
            let known = expected.iter().filter(|(key, _)| *key != "<rest>");
            (open || got.len() == expected.len())
                && known.clone().all(|(key, value)| got.get(key).is_some_and(|got| matches(got, value)))
        }
        (got, expected) => got == expected,
    }
}

fn fits(got: &Json, open: &str) -> bool {
    let text = || got.as_str().unwrap_or_default();
    match open {
        "<any>" | "<rest>" => true,
        "<int>" => got.is_u64() || got.is_i64(),
        "<number>" => got.is_number(),
        "<text>" => got.is_string(),
        "<uuid>" => {
            text().len() == 36
                && text().split('-').map(str::len).eq([8, 4, 4, 4, 12])
                && text().chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        }
        "<hex32>" => text().len() == 32 && text().chars().all(|c| c.is_ascii_hexdigit()),
        other => got.as_str() == Some(other),
    }
}

#[test]
fn patterns_tell_apart() {
    use serde_json::json;
    for (got, expected, fits) in [
        (json!(1), json!(1.0), true),
        (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
        (json!({"a": 1, "b": 2}), json!({"a": 1}), false),
        (json!({"a": 1, "b": 2}), json!({"a": 1, "<rest>": ""}), true),
        (json!([1, 2]), json!({"<unordered>": [2, 1]}), true),
        (json!([1, 3]), json!({"<unordered>": [2, 1]}), false),
        (json!("x"), json!("<int>"), false),
        (json!("<x>"), json!("<x>"), true),
    ] {
        assert_eq!(matches(&got, &expected), fits, "{got} {expected}");
    }
}
