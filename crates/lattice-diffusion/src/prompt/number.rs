//! Numbers as weights are written.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Parses a number in Python's `float()` syntax: surrounding white space, a sign, an exponent, `inf`, `infinity`,
/// `nan` in any case, `_` between digits, decimal digits of every script.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut after_digit = false;
    while let Some(c) = chars.next() {
        let digit = decimal_digit(c);
        match (c, digit) {
            (_, Some(value)) => plain.push(char::from(b'0' + value)),
            // An underscore counts only between two digits.
            ('_', _) if after_digit && chars.peek().copied().is_some_and(|c| decimal_digit(c).is_some()) => {}
            (c, _) if c.is_ascii_alphabetic() || matches!(c, '+' | '-' | '.') => {
                plain.push(c.to_ascii_lowercase());
            }
            _ => return None,
        }
        after_digit = digit.is_some();
    }
    // The standard parser agrees with Python's on what remains, in rounding too.
    plain.parse().ok()
}

/// White space as Python's `str.strip` and `str.split` see it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Value of a decimal digit of any script. Unicode keeps the ten digits of a script together in ascending order, so
/// the distance from the start of the run tells the value.
fn decimal_digit(c: char) -> Option<u8> {
    let is_digit = |c: char| c.general_category() == GeneralCategory::DecimalNumber;
    if c.is_ascii() || !is_digit(c) {
        return c.to_digit(10).map(|d| d as u8);
    }
    let before = (1..).map_while(|n| u32::from(c).checked_sub(n).and_then(char::from_u32));
    Some((before.take_while(|c| is_digit(*c)).count() % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_syntax() {
        let numbers = [
            ("1.2", 1.2),
            (" +.5\n", 0.5),
            ("1_0.0_1e-1_0", 10.01e-10),
            ("-1.", -1.0),
            ("iNf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("١٢.٣", 12.3),
            ("𝟗𝟎", 90.0),
            ("\u{1c}3\u{2003}", 3.0),
            ("1e999", f64::INFINITY),
        ];
        for (text, value) in numbers {
            assert_eq!(parse_float(text), Some(value), "{text:?}");
        }
        assert!(parse_float("NaN").is_some_and(f64::is_nan));
        for text in
            ["", " ", "1__0", "_1", "1_", "1_.0", "0x10", "1,2", "1e", "e5", "+-1", "½", "²", "1 2", "."]
        {
            assert_eq!(parse_float(text), None, "{text:?}");
        }
    }
}
