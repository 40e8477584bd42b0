//! Texts: joining, cutting, comparing, regular expressions. Positions count code points, as in Python.

use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};
use lattice_graph::Node;

use crate::node::node;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        string_concatenate,
        string_substring,
        string_length,
        case_converter,
        string_trim,
        string_replace,
        string_contains,
        string_compare,
        regex_match,
        regex_extract,
        regex_replace,
    ]
}

/// Joins two texts with a delimiter between them.
#[node(
    name = "StringConcatenate",
    title = "Concatenate",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn string_concatenate(
    #[widget(multiline = true)] string_a: &str,
    #[widget(multiline = true)] string_b: &str,
    #[widget(default = "", multiline = false)] delimiter: &str,
) -> String {
    [string_a, delimiter, string_b].concat()
}

/// Cuts a part out of a text. Negative positions count from the end.
#[node(
    name = "StringSubstring",
    title = "Substring",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn string_substring(
    #[widget(multiline = true)] string: &str,
    #[widget] start: i64,
    #[widget] end: i64,
) -> String {
    let length = string.chars().count();
    let position = |at: i64| {
        let offset = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX).min(length);
        if at < 0 { length - offset } else { offset }
    };
    let (start, end) = (position(start), position(end));
    string.chars().skip(start).take(end.saturating_sub(start)).collect()
}

/// Counts the characters of a text.
#[node(
    name = "StringLength",
    title = "Length",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3,
    outputs("length")
)]
fn string_length(#[widget(multiline = true)] string: &str) -> usize {
    string.chars().count()
}

/// Changes the case of letters.
#[node(
    name = "CaseConverter",
    title = "Case Converter",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn case_converter(
    #[widget(multiline = true)] string: &str,
    #[combo("UPPERCASE", "lowercase", "Capitalize", "Title Case")] mode: &str,
) -> String {
    match mode {
        "UPPERCASE" => string.to_uppercase(),
        "lowercase" => string.to_lowercase(),
        "Capitalize" => with_capitals(string, |index, _| index == 0),
        "Title Case" => with_capitals(string, |_, before| !before.is_some_and(char::is_alphabetic)),
        _ => string.to_owned(),
    }
}

/// Upper case where `capital(index, character before)` says so, lower case elsewhere.
fn with_capitals(text: &str, capital: impl Fn(usize, Option<char>) -> bool) -> String {
    let lower = text.to_lowercase();
    // Lowering may change the number of characters; then positions no longer correspond.
    let lower: Vec<char> = if lower.chars().count() == text.chars().count() {
        lower.chars().collect()
    } else {
        text.chars().collect()
    };
    let mut before = None;
    let mut out = String::with_capacity(text.len());
    for (index, (original, lower)) in text.chars().zip(lower).enumerate() {
        if capital(index, before) {
            out.extend(original.to_uppercase());
        } else {
            out.push(lower);
        }
        before = Some(original);
    }
    out
}

/// Takes white space off the ends of a text.
#[node(
    name = "StringTrim",
    title = "Trim",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn string_trim(
    #[widget(multiline = true)] string: &str,
    #[combo("Both", "Left", "Right")] mode: &str,
) -> String {
    match mode {
        "Both" => string.trim(),
        "Left" => string.trim_start(),
        "Right" => string.trim_end(),
        _ => string,
    }
    .to_owned()
}

/// Replaces every occurrence of a text.
#[node(
    name = "StringReplace",
    title = "Replace",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn string_replace(
    #[widget(multiline = true)] string: &str,
    #[widget(multiline = true)] find: &str,
    #[widget(multiline = true)] replace: &str,
) -> String {
    string.replace(find, replace)
}

/// Whether a text occurs in another.
#[node(
    name = "StringContains",
    title = "Contains",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3,
    outputs("contains")
)]
fn string_contains(
    #[widget(multiline = true)] string: &str,
    #[widget(multiline = true)] substring: &str,
    #[widget(default = true)] case_sensitive: bool,
) -> bool {
    folded(string, case_sensitive).contains(&folded(substring, case_sensitive))
}

fn folded(text: &str, case_sensitive: bool) -> String {
    if case_sensitive { text.to_owned() } else { text.to_lowercase() }
}

/// Compares two texts.
#[node(
    name = "StringCompare",
    title = "Compare",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn string_compare(
    #[widget(multiline = true)] string_a: &str,
    #[widget(multiline = true)] string_b: &str,
    #[combo("Starts With", "Ends With", "Equal")] mode: &str,
    #[widget(default = true)] case_sensitive: bool,
) -> Result<bool> {
    let (a, b) = (folded(string_a, case_sensitive), folded(string_b, case_sensitive));
    match mode {
        "Starts With" => Ok(a.starts_with(&b)),
        "Ends With" => Ok(a.ends_with(&b)),
        "Equal" => Ok(a == b),
        _ => Err(Error::value(format!("unknown comparison {mode:?}"))),
    }
}

/// Flags of a regular expression.
#[derive(Clone, Copy)]
struct Flags {
    case_insensitive: bool,
    multiline: bool,
    dotall: bool,
}

fn regex(pattern: &str, flags: Flags) -> Result<Regex> {
    let letters = [(flags.case_insensitive, 'i'), (flags.multiline, 'm'), (flags.dotall, 's')];
    let letters: String = letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    let pattern = if letters.is_empty() { pattern.to_owned() } else { format!("(?{letters}){pattern}") };
    RegexBuilder::new(&pattern).build().map_err(|e| Error::value(format!("regular expression: {e}")))
}

/// Whether a regular expression matches somewhere in a text. An expression that is none matches nowhere.
#[node(
    name = "RegexMatch",
    title = "Regex Match",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3,
    outputs("matches")
)]
fn regex_match(
    #[widget(multiline = true)] string: &str,
    #[widget(multiline = true)] regex_pattern: &str,
    #[widget(default = true)] case_insensitive: bool,
    #[widget(default = false)] multiline: bool,
    #[widget(default = false)] dotall: bool,
) -> bool {
    regex(regex_pattern, Flags { case_insensitive, multiline, dotall })
        .is_ok_and(|regex| regex.is_match(string).unwrap_or(false))
}

/// Takes what a regular expression matches out of a text. An expression that is none gives an empty text.
#[node(
    name = "RegexExtract",
    title = "Regex Extract",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn regex_extract(
    #[widget(multiline = true)] string: &str,
    #[widget(multiline = true)] regex_pattern: &str,
    #[combo("First Match", "All Matches", "First Group", "All Groups")] mode: &str,
    #[widget(default = true)] case_insensitive: bool,
    #[widget(default = false)] multiline: bool,
    #[widget(default = false)] dotall: bool,
    #[widget(default = 1, min = 0, max = 100)] group_index: usize,
) -> String {
    let Ok(regex) = regex(regex_pattern, Flags { case_insensitive, multiline, dotall }) else {
        return String::new();
    };
    // (index of the group to take, all matches or the first)
    let (group, all) = match mode {
        "First Match" => (0, false),
        // With groups the matches are given by their first group.
        "All Matches" => (usize::from(regex.captures_len() > 1), true),
        "First Group" => (group_index, false),
        _ => (group_index, true),
    };
    if group >= regex.captures_len() {
        return String::new();
    }
    // An expression that backtracks without end stops matching.
    let matches = regex.captures_iter(string).map_while(std::result::Result::ok);
    let texts = matches.map(|captures| captures.get(group).map_or("", |found| found.as_str()));
    texts.take(if all { usize::MAX } else { 1 }).collect::<Vec<_>>().join("\n")
}

/// Replaces what a regular expression matches. In the replacement `\1` and `\g<name>` stand for groups.
#[node(
    name = "RegexReplace",
    title = "Regex Replace",
    category = "utils/string",
    module = "comfy_extras.nodes_string",
    v3
)]
fn regex_replace(
    #[widget(multiline = true)] string: &str,
    #[widget(multiline = true)] regex_pattern: &str,
    #[widget(multiline = true)] replace: &str,
    #[widget(default = true)] case_insensitive: Option<bool>,
    #[widget(default = false)] multiline: Option<bool>,
    #[widget(default = false)] dotall: Option<bool>,
    #[widget(default = 0, min = 0, max = 100)] count: Option<usize>,
) -> Result<String> {
    let flags = Flags {
        case_insensitive: case_insensitive.unwrap_or(true),
        multiline: multiline.unwrap_or(false),
        dotall: dotall.unwrap_or(false),
    };
    let regex = regex(regex_pattern, flags)?;
    let limit = count.filter(|&n| n > 0).unwrap_or(usize::MAX);
    let mut out = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(string).take(limit) {
        let captures = captures.map_err(|e| Error::value(format!("regular expression: {e}")))?;
        let Some(found) = captures.get(0) else { continue };
        out.push_str(&string[end..found.start()]);
        fancy_regex::Expander::python().append_expansion(&mut out, replace, &captures);
        end = found.end();
    }
    out.push_str(&string[end..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_pythons() {
        let cut = |start, end| string_substring("añbc", start, end);
        assert_eq!([cut(0, 2), cut(-2, 100), cut(1, -1), cut(3, 1)], ["añ", "bc", "ñb", ""]);
        assert_eq!(cut(i64::MIN, i64::MAX), "añbc");
    }

    #[test]
    fn cases_are_pythons() {
        assert_eq!(case_converter("hELLO wORLD's", "Capitalize"), "Hello world's");
        assert_eq!(case_converter("hELLO wORLD's", "Title Case"), "Hello World'S");
    }

    #[test]
    fn expressions_match_extract_and_replace() {
        assert!(regex_match("Hello", "^h", true, false, false));
        assert!(!regex_match("x", "(", true, false, false));
        let all = |pattern, mode, group| regex_extract("a1 b2", pattern, mode, true, false, false, group);
        assert_eq!(all(r"[a-z]\d", "All Matches", 1), "a1\nb2");
        assert_eq!(all(r"([a-z])(\d)", "All Groups", 2), "1\n2");
        assert_eq!(all(r"([a-z])", "First Group", 9), "");
        let replaced = regex_replace("a1 b2 c3", r"([a-z])(\d)", r"\2\1", None, None, None, Some(2));
        assert_eq!(replaced.unwrap(), "1a 2b c3");
    }
}
