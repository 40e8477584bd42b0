//! Texts that an editor rewrites when it makes a prompt.

/// A moment in local time, for `%date:...%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    /// Four digits.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
}

impl LocalTime {
    /// With `d dd M MM h hh m mm s ss yy yyyy` replaced.
    pub(super) fn format(&self, format: &str) -> String {
        let tokens: [(&str, String); 12] = [
            ("yyyy", self.year.to_string()),
            ("yy", format!("{:02}", self.year.rem_euclid(100))),
            ("MM", format!("{:02}", self.month)),
            ("M", self.month.to_string()),
            ("dd", format!("{:02}", self.day)),
            ("d", self.day.to_string()),
            ("hh", format!("{:02}", self.hour)),
            ("h", self.hour.to_string()),
            ("mm", format!("{:02}", self.minute)),
            ("m", self.minute.to_string()),
            ("ss", format!("{:02}", self.second)),
            ("s", self.second.to_string()),
        ];
        let (mut out, mut rest) = (String::new(), format);
        while let Some(c) = rest.chars().next() {
            let token = tokens.iter().find(|(token, _)| rest.starts_with(token));
            let length = token.map_or(c.len_utf8(), |(token, _)| token.len());
            match token {
                Some((_, value)) => out.push_str(value),
                None => out.push(c),
            }
            rest = &rest[length..];
        }
        out
    }
}

/// Choices that depend on a seed alone (SplitMix64).
#[derive(Clone, Debug)]
pub struct SeededChoice(u64);

impl SeededChoice {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An index below `count` (0 if there is nothing to choose from).
    pub fn choose(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * count as u128) >> 64) as usize
    }
}

/// A value as part of a file name.
fn file_name_part(value: &str) -> String {
    let bad = |c: char| "/?<>\\:*|\"".contains(c) || c.is_control();
    value.chars().map(|c| if bad(c) { '_' } else { c }).collect()
}

/// `%date:FORMAT%` and `%Node.widget%` (`widget` looks it up); all else between percent signs stays.
pub(super) fn replace(text: &str, now: &LocalTime, widget: impl Fn(&str, &str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(end) = rest[1..].find('%').map(|end| end + 1) else { break };
        let name = &rest[1..end];
        let replaced = match (name.strip_prefix("date:"), name.split_once('.')) {
            (Some(format), _) => Some(now.format(format)),
            (None, Some((node, name))) => widget(node, name).map(|value| file_name_part(&value)),
            _ => None,
        };
        if let Some(replaced) = replaced {
            out.push_str(&replaced);
            rest = &rest[end + 1..];
        } else {
            // The closing sign may open the next one.
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Without `/* */` and `//` comments; an unclosed `/*` stays.
fn without_comments(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let mut may_close = true;
    while let Some(start) = rest.find('/') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let mut after = None;
        if let Some(inner) = rest.strip_prefix("/*").filter(|_| may_close) {
            after = inner.find("*/").map(|end| &inner[end + 2..]);
            may_close = after.is_some();
        } else if rest.starts_with("//") {
            after = Some(&rest[rest.find('\n').unwrap_or(rest.len())..]);
        }
        rest = after.unwrap_or_else(|| {
            out.push('/');
            &rest[1..]
        });
    }
    out.push_str(rest);
    out
}

/// A choice that is being read.
#[derive(Default)]
struct Choice {
    options: Vec<String>,
    /// Last option so far.
    current: String,
}

impl Choice {
    fn decide(mut self, choose: &mut dyn FnMut(usize) -> usize) -> String {
        self.options.push(self.current);
        let chosen = choose(self.options.len()).min(self.options.len() - 1);
        self.options.swap_remove(chosen)
    }
}

/// With comments removed and `{a|b|c}` decided, inner ones first; `\{ \} \|` are literal.
pub(super) fn dynamic_prompt(text: &str, choose: &mut dyn FnMut(usize) -> usize) -> String {
    let text = without_comments(text);
    let mut out = String::new();
    let mut open: Vec<Choice> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| "{}|".contains(*next)) } else { None };
        match (escaped, c, open.last_mut()) {
            (None, '{', _) => open.push(Choice::default()),
            (None, '|', Some(choice)) => choice.options.push(std::mem::take(&mut choice.current)),
            (None, '}', Some(_)) => close(&mut open, &mut out, choose),
            (escaped, c, Some(choice)) => choice.current.push(escaped.unwrap_or(c)),
            (escaped, c, None) => out.push(escaped.unwrap_or(c)),
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut out, choose);
    }
    out
}

/// Decides the innermost choice and puts it where it stands.
fn close(open: &mut Vec<Choice>, out: &mut String, choose: &mut dyn FnMut(usize) -> usize) {
    let Some(choice) = open.pop() else { return };
    let text = choice.decide(choose);
    match open.last_mut() {
        Some(outer) => outer.current.push_str(&text),
        None => out.push_str(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> String {
        dynamic_prompt(text, &mut |_| 0)
    }

    fn last(text: &str) -> String {
        dynamic_prompt(text, &mut |count| count - 1)
    }

    #[test]
    fn choices() {
        assert_eq!((first("a {b|c} d"), last("a {b|c} d")), ("a b d".into(), "a c d".into()));
        assert_eq!((first("{a|{b|c} }"), last("{a|{b|c} }")), ("a".into(), "c ".into()));
        for (text, expected) in
            [("{a}", "a"), ("{|}", ""), ("{a", "a"), ("a}", "a}"), ("a|b", "a|b"), ("\\{a\\|\\}", "{a|}")]
        {
            assert_eq!(first(text), expected);
        }
        assert_eq!(first(&"{".repeat(100_000)), "");
    }

    #[test]
    fn comments() {
        for (text, expected) in
            [("a/*b*/c//d\ne", "ac\ne"), ("http://x\ny", "http:\ny"), ("/* open", "/* open"), ("a/b", "a/b")]
        {
            assert_eq!(first(text), expected);
        }
    }

    #[test]
    fn replacements() {
        let now = LocalTime { year: 2026, month: 3, day: 5, hour: 9, minute: 7, second: 1 };
        let widget = |node: &str, name: &str| (node == "N" && name == "w").then(|| "a/b".to_owned());
        let text = "%date:yyyy-MM-dd hh:mm:ss d/M/yy%_%N.w%_%N.x%_%width%_100%";
        assert_eq!(replace(text, &now, widget), "2026-03-05 09:07:01 5/3/26_a_b_%N.x%_%width%_100%");
    }

    #[test]
    fn seeded_choices_repeat_and_stay_in_range() {
        let draw = |seed| {
            let mut choice = SeededChoice::new(seed);
            (0..100).map(|_| choice.choose(3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!((0..3).all(|i| draw(1).contains(&i)) && draw(1).iter().all(|&i| i < 3));
        assert_eq!(SeededChoice::new(0).choose(0), 0);
    }
}
