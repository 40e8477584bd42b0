//! The little of EXIF that carries metadata: ASCII entries of the first image file directory of a TIFF block.

/// `(tag, text)` entries of directory 0; what cannot be read is left out. A leading `Exif\0\0` is skipped.
///
/// Entries may point at the same bytes; texts longer in all than the block are cut off, or a small block could become gigabytes.
pub fn read(block: &[u8]) -> Vec<(u16, String)> {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let little = match tiff.get(..2) {
        Some(b"II") => true,
        Some(b"MM") => false,
        _ => return Vec::new(),
    };
    let u16_at = |at: usize| {
        let b: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) })
    };
    let u32_at = |at: usize| {
        let b: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) } as usize)
    };
    let mut budget = tiff.len();
    let mut entry = |at: usize| {
        let (tag, kind, count) = (u16_at(at)?, u16_at(at + 2)?, u32_at(at + 4)?);
        let from = if count <= 4 { at + 8 } else { u32_at(at + 8)? };
        let bytes = (kind == ASCII).then(|| tiff.get(from..from.checked_add(count)?)).flatten()?;
        budget = budget.checked_sub(count)?;
        let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
        Some((tag, String::from_utf8_lossy(text).into_owned()))
    };
    let Some(directory) = u32_at(4) else { return Vec::new() };
    let count = u16_at(directory).unwrap_or(0);
    (0..usize::from(count)).filter_map(|i| entry(directory.checked_add(2 + 12 * i)?)).collect()
}

/// TIFF type of NUL-ended text.
const ASCII: u16 = 2;

/// A little-endian TIFF block with the given ASCII entries, sorted by tag as TIFF asks.
pub fn write(entries: &[(u16, String)]) -> Vec<u8> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(tag, _)| *tag);
    let mut block = b"II*\0\x08\0\0\0".to_vec();
    block.extend((entries.len() as u16).to_le_bytes());
    let mut texts = Vec::new();
    let texts_at = block.len() + 12 * entries.len() + 4;
    for (tag, text) in entries {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        block.extend(tag.to_le_bytes());
        block.extend(ASCII.to_le_bytes());
        block.extend((bytes.len() as u32).to_le_bytes());
        if bytes.len() <= 4 {
            bytes.resize(4, 0);
            block.extend(bytes);
        } else {
            block.extend(((texts_at + texts.len()) as u32).to_le_bytes());
            texts.extend(bytes);
            texts.resize(texts.len().next_multiple_of(2), 0);
        }
    }
    block.extend([0; 4]);
    block.extend(texts);
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_read_back(texts in prop::collection::vec("[ -~é]{0,20}", 0..5)) {
            let entries: Vec<(u16, String)> = (0x100..).zip(texts).collect();
            prop_assert_eq!(super::read(&super::write(&entries)), entries);
        }

        #[test]
        fn entries_of_the_same_bytes_end_with_the_budget(count in 1u16..200) {
            let mut block = b"II*\0\x08\0\0\0".to_vec();
            block.extend(count.to_le_bytes());
            let text = [b'a'; 1000];
            let at = block.len() as u32 + 12 * u32::from(count);
            for _ in 0..count {
                block.extend([0, 1, 2, 0]);
                block.extend((text.len() as u32).to_le_bytes());
                block.extend(at.to_le_bytes());
            }
            block.extend(text);
            let total: usize = super::read(&block).iter().map(|(_, text)| text.len()).sum();
            prop_assert!((1000..=block.len()).contains(&total), "{total} of {}", block.len());
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..80), little: bool) {
            if let Some(head) = bytes.get_mut(..2) {
                head.copy_from_slice(if little { b"II" } else { b"MM" });
            }
            super::read(&bytes);
        }
    }
}
