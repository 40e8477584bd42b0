//! The weight grammar: `(text)` weighs 1.1 times as much, `(text:1.3)` weighs 1.3, `\(` and `\)` are plain.

use super::number::parse_float;

/// Text of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The text, its escapes resolved.
    pub text: String,
    /// Its weight.
    pub weight: f64,
}

/// Splits a prompt into segments. Never fails: what is not in the grammar is text.
///
/// Takes time and memory proportional to the prompt however deep it nests.
pub fn parse_weights(prompt: &str) -> Vec<Segment> {
    Parser::new(prompt).parse()
}

/// The text without the backslashes of escaped parentheses, as encoders read it that know no weights.
pub(super) fn resolve_escapes(prompt: &str) -> String {
    Parser::new(prompt).text
}

/// No partner.
const NONE: usize = usize::MAX;

/// A stretch of the text in which parentheses are still to be resolved.
struct Frame {
    at: usize,
    end: usize,
    weight: f64,
}

struct Parser {
    /// The prompt without the backslashes of its escapes.
    text: String,
    /// For each byte: its partner if it is a parenthesis that has one, [`NONE`] otherwise.
    partners: Vec<usize>,
    /// For each byte: whether it is a parenthesis that was not escaped.
    is_syntax: Vec<bool>,
    segments: Vec<Segment>,
}

impl Parser {
    fn new(prompt: &str) -> Self {
        let mut text = String::with_capacity(prompt.len());
        let mut is_syntax = Vec::with_capacity(prompt.len());
        let mut chars = prompt.chars().peekable();
        while let Some(c) = chars.next() {
            let escaped = if c == '\\' { chars.next_if(|c| matches!(c, '(' | ')')) } else { None };
            let plain = escaped.unwrap_or(c);
            text.push(plain);
            is_syntax.resize(text.len(), escaped.is_none() && matches!(plain, '(' | ')'));
        }
        let mut partners = vec![NONE; text.len()];
        let mut open = Vec::new();
        for (i, &byte) in text.as_bytes().iter().enumerate().filter(|(i, _)| is_syntax[*i]) {
            if byte == b'(' {
                open.push(i);
            } else if let Some(start) = open.pop() {
                partners[start] = i;
                partners[i] = start;
            }
        }
        Self { text, partners, is_syntax, segments: Vec::new() }
    }

    fn parse(mut self) -> Vec<Segment> {
        let mut stack = vec![Frame { at: 0, end: self.text.len(), weight: 1.0 }];
        while let Some(mut frame) = stack.pop() {
            if let Some(inner) = self.next_group(&mut frame) {
                stack.push(frame);
                stack.push(inner);
            }
        }
        self.segments
    }

    /// Emits the text before the next group and returns what is inside of it; `frame` is left behind the group.
    fn next_group(&mut self, frame: &mut Frame) -> Option<Frame> {
        // A `)` too many leaves a debt: as many `(` are plain before the next one opens a group.
        let mut debt = 0usize;
        let start = frame.at;
        for i in start..frame.end {
            if !self.is_syntax[i] {
                continue;
            }
            if self.text.as_bytes()[i] == b')' {
                debt += 1;
            } else if debt > 0 {
                debt -= 1;
            } else {
                self.emit(start, i, frame.weight);
                return self.open_group(i, frame);
            }
        }
        self.emit(start, frame.end, frame.weight);
        frame.at = frame.end;
        None
    }

    /// The inside of the group that opens at `open`.
    fn open_group(&mut self, open: usize, frame: &mut Frame) -> Option<Frame> {
        let closing = self.partners[open];
        if closing != NONE {
            frame.at = closing + 1;
            return Some(self.inside(open + 1, closing, frame.weight));
        }
        // A group that is never closed reaches to the end. If a `)` stands there it is taken for its own, which leaves
        // the parenthesis that it belonged to unclosed in turn.
        frame.at = frame.end;
        let last = frame.end - 1;
        if last > open && self.is_syntax[last] && self.text.as_bytes()[last] == b')' {
            let partner = self.partners[last];
            if partner != NONE {
                self.partners[partner] = NONE;
            }
            return Some(self.inside(open + 1, last, frame.weight));
        }
        self.emit(open, frame.end, frame.weight);
        None
    }

    /// Cuts a `:number` off the end of a group, or weighs it 1.1 times as much.
    fn inside(&self, start: usize, end: usize, weight: f64) -> Frame {
        let bytes = self.text.as_bytes();
        // No number contains a parenthesis, so looking further back is pointless (and would take quadratic time).
        let colon = (start..end).rev().find(|&i| bytes[i] == b':' || self.is_syntax[i]);
        let number = colon
            .filter(|&i| bytes[i] == b':' && i > start)
            .and_then(|i| Some((i, parse_float(&self.text[i + 1..end])?)));
        match number {
            Some((colon, weight)) => Frame { at: start, end: colon, weight },
            None => Frame { at: start, end, weight: weight * 1.1 },
        }
    }

    fn emit(&mut self, start: usize, end: usize, weight: f64) {
        if start < end {
            self.segments.push(Segment { text: self.text[start..end].to_owned(), weight });
        }
    }
}
