//! Special tokens written out in a text.

/// A special token and how much of its surroundings it takes with it.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub(super) text: String,
    pub(super) id: u32,
}

impl Special {
    pub(super) fn new(text: impl Into<String>, id: u32) -> Self {
        Self { text: text.into(), id }
    }
}

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

/// Cuts out the special tokens, the longest one where several begin at the same place; empty texts are dropped.
pub(super) fn split<'a>(text: &'a str, specials: &[Special]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    let begins = |rest: &str| {
        let found = specials.iter().filter(|s| rest.starts_with(s.text.as_str()));
        found.max_by_key(|s| s.text.len())
    };
    while let Some(c) = text[at..].chars().next() {
        // Every special token begins with a bracket; testing that first keeps ordinary text cheap.
        match if matches!(c, '<' | '[') { begins(&text[at..]) } else { None } {
            Some(special) => {
                if start < at {
                    pieces.push(Piece::Text(&text[start..at]));
                }
                pieces.push(Piece::Special(special.id));
                at += special.text.len();
                start = at;
            }
            None => at += c.len_utf8(),
        }
    }
    if start < text.len() {
        pieces.push(Piece::Text(&text[start..]));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_token_wins_and_empty_texts_vanish() {
        let specials = [Special::new("<a>", 1), Special::new("<a>b", 2)];
        let pieces = split("x<a><a>b<", &specials);
        assert_eq!(pieces, [Piece::Text("x"), Piece::Special(1), Piece::Special(2), Piece::Text("<")]);
        assert!(split("", &specials).is_empty());
    }
}
