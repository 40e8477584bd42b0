//! Character classes and the text clean-up that BERT's tokenizer introduced and CLIP's took over.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Category L*.
pub(super) fn is_letter(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Letter
}

/// Category N*.
pub(super) fn is_number(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Number
}

/// Category Mn.
pub(super) fn is_accent(c: char) -> bool {
    c.general_category() == GeneralCategory::NonspacingMark
}

/// ASCII symbols and category P*.
pub(super) fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// Ideographs that get spaces around them. Kana and Hangul are not among them.
fn is_cjk_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F
        | 0x2B740..=0x2B81F | 0x2B820..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

/// What is left of a character after cleaning: control, format, private and unassigned characters (category C*)
/// vanish, white space becomes a space.
fn clean(c: char) -> Option<char> {
    if matches!(c, '\t' | '\n' | '\r') || c.general_category() == GeneralCategory::SpaceSeparator {
        return Some(' ');
    }
    let dropped = c == '\u{fffd}' || c.general_category_group() == GeneralCategoryGroup::Other;
    (!dropped).then_some(c)
}

/// Cleans, sets ideographs apart and composes (NFC); words are then what white space separates.
pub(super) fn basic_clean(text: impl Iterator<Item = char>) -> String {
    let spaced = text.filter_map(clean).flat_map(|c| {
        let space = is_cjk_ideograph(c).then_some(' ');
        [space, Some(c), space].into_iter().flatten()
    });
    spaced.nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_drops_controls_and_sets_ideographs_apart() {
        let clean = |s: &str| basic_clean(s.chars());
        assert_eq!(clean("a\u{0}b\u{200b}c\u{e000}\tx"), "abc x");
        assert_eq!(clean("a猫b"), "a 猫 b");
        assert_eq!(clean("e\u{301}"), "é");
    }
}
