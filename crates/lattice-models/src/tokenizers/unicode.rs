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

/// Characters that Unicode has assigned since version 15.1. The reference tokenizers run on that version's tables and
/// drop them as unassigned. (Ranges may span what is unassigned to this day.)
fn is_newer_than_unicode_15(c: char) -> bool {
    matches!(
        u32::from(c),
        0x558 | 0x58B..=0x58C | 0x5C8..=0x5C9 | 0x88F | 0x897 | 0xB53..=0xB54 | 0xC5C | 0xCDC |
        0x1ACF..=0x1AF0 | 0x1B4E..=0x1B4F | 0x1B7F | 0x1C89..=0x1C8A | 0x208F | 0x209D..=0x209F |
        0x20C1..=0x20C4 | 0x2427..=0x2429 | 0x2B96 | 0x2E60..=0x2E63 | 0x31E4..=0x31E5 |
        0xA7CB..=0xA7CF | 0xA7D2 | 0xA7D4 | 0xA7DA..=0xA7F1 | 0xAB6C..=0xAB6D | 0xFBC3..=0xFBD2 |
        0xFD90..=0xFD91 | 0xFDC8..=0xFDCE | 0x105C0..=0x105F3 | 0x107BB..=0x107BF |
        0x10940..=0x10959 | 0x10D40..=0x10D8F | 0x10EC2..=0x10EFC | 0x11380..=0x113E2 |
        0x116D0..=0x116E3 | 0x11B0A..=0x11BF9 | 0x11DB0..=0x11DF1 | 0x11F5A | 0x1246F |
        0x12475..=0x1247F | 0x12550..=0x12686 | 0x13460..=0x143FA | 0x16100..=0x16139 |
        0x16D40..=0x16D79 | 0x16EA0..=0x16ED3 | 0x16FF2..=0x16FF6 | 0x187F8..=0x187FF |
        0x18CD6..=0x18CFF | 0x18D09..=0x191D2 | 0x1B123..=0x1B128 | 0x1B168 | 0x1CC00..=0x1CEFD |
        0x1D127..=0x1D128 | 0x1D1EB..=0x1D1FF | 0x1D250..=0x1D281 | 0x1D6A6 | 0x1DB00..=0x1DB1C |
        0x1DF1F..=0x1DF24 | 0x1DF2B..=0x1DFFF | 0x1E5D0..=0x1E6FF | 0x1F1AE | 0x1F6D8..=0x1F6D9 |
        0x1F777..=0x1F77A | 0x1F7DA..=0x1F7DB | 0x1F7F1..=0x1F7FF | 0x1F8B2..=0x1F8D8 |
        0x1FA54..=0x1FA57 | 0x1FA89..=0x1FA8F | 0x1FABE | 0x1FAC6..=0x1FACD | 0x1FADC..=0x1FADF |
        0x1FAE9..=0x1FAEF | 0x1FAF9..=0x1FAFA | 0x1FBCB..=0x1FBEF | 0x1FBFA | 0x2B73A..=0x2B73F |
        0x2B81E | 0x2CEA2..=0x2CEAD | 0x323B0..=0x3FC3F
    )
}

/// What is left of a character after cleaning: control, format, private and unassigned characters (category C*)
/// vanish, white space becomes a space.
fn clean(c: char) -> Option<char> {
    if matches!(c, '\t' | '\n' | '\r') || c.general_category() == GeneralCategory::SpaceSeparator {
        return Some(' ');
    }
    let dropped = c == '\u{fffd}'
        || c.general_category_group() == GeneralCategoryGroup::Other
        || is_newer_than_unicode_15(c);
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
        assert_eq!(clean("a\u{1f8c0}b"), "ab");
        assert_eq!(clean("a猫b"), "a 猫 b");
        assert_eq!(clean("e\u{301}"), "é");
    }
}
