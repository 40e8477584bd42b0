//! The little of the zip format that PyTorch uses: uncompressed entries, 64-bit sizes included.

use std::collections::HashMap;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::error::Cause;

const END: [u8; 4] = *b"PK\x05\x06";
const END_64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END_64: [u8; 4] = *b"PK\x06\x06";
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// Length of the end record without its comment, and the longest comment.
const END_LENGTH: usize = 22;
const COMMENT_LIMIT: usize = 0xffff;

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Entries by name, as slices of the archive.
pub(super) fn entries(bytes: &Bytes) -> Result<HashMap<String, Bytes>, Cause> {
    let (count, start) = directory(bytes).ok_or(Cause::Malformed {
        what: "archive",
        detail: "its directory is missing (truncated?)".into(),
    })?;
    let mut cursor = Cursor::new(bytes, usize::try_from(start).unwrap_or(usize::MAX));
    if count > cursor.remaining() as u64 / 46 {
        return Err(Cause::malformed("archive", format!("its directory cannot have {count} entries")));
    }
    let mut out = HashMap::with_capacity(count as usize);
    for _ in 0..count {
        let (name, entry) = entry(bytes, &mut cursor)?;
        out.insert(name, entry);
    }
    Ok(out)
}

/// Number of entries and start of the central directory.
fn directory(bytes: &[u8]) -> Option<(u64, u64)> {
    let first = bytes.len().checked_sub(END_LENGTH)?;
    let end =
        (first.saturating_sub(COMMENT_LIMIT)..=first).rev().find(|&at| bytes[at..].starts_with(&END))?;
    let (count, start) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)?);
    if count != 0xffff && start != 0xffff_ffff {
        return Some((count, start));
    }
    let locator = end.checked_sub(20)?;
    if !bytes[locator..].starts_with(&END_64_LOCATOR) {
        return Some((count, start));
    }
    let end_64 = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
    bytes.get(end_64..)?.starts_with(&END_64).then_some(())?;
    // The record was found to lie inside, so these positions cannot overflow.
    Some((u64_at(bytes, end_64 + 32)?, u64_at(bytes, end_64 + 48)?))
}

fn entry(bytes: &Bytes, cursor: &mut Cursor<'_>) -> Result<(String, Bytes), Cause> {
    let what = "the archive's directory";
    let header: [u8; 46] = cursor.array(what)?;
    let malformed = |detail: String| Cause::Malformed { what: "archive", detail };
    let field = |at| u32_at(&header, at).unwrap_or(0);
    let short = |at| u16_at(&header, at).unwrap_or(0);
    if field(0) != u64::from(CENTRAL) {
        return Err(malformed("its directory is damaged".into()));
    }
    let name = String::from_utf8_lossy(cursor.take(short(28), what)?).into_owned();
    let extra = cursor.take(short(30), what)?;
    cursor.take(short(32), what)?;
    if short(10) != 0 {
        return Err(malformed(format!("entry {name} is compressed, which PyTorch never does")));
    }
    let (mut size, mut offset) = (field(24), field(42));
    // 64-bit values stand in extra field 1, in this order and only those that did not fit.
    let mut wide = wide_values(extra).into_iter();
    if size == 0xffff_ffff {
        size = wide.next().unwrap_or(size);
    }
    if field(20) == 0xffff_ffff {
        wide.next();
    }
    if offset == 0xffff_ffff {
        offset = wide.next().unwrap_or(offset);
    }
    // The data begin behind the entry's own header, whose name and extra field may have other lengths.
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut local = Cursor::new(bytes, start);
    let local_header: [u8; 30] = local.array("an archive entry")?;
    if u32_at(&local_header, 0) != Some(u64::from(LOCAL)) {
        return Err(malformed(format!("entry {name} is not where the directory says")));
    }
    let skip = u16_at(&local_header, 26).unwrap_or(0) + u16_at(&local_header, 28).unwrap_or(0);
    local.take(skip, "an archive entry")?;
    let begin = local.position();
    local.take(size, "an archive entry")?;
    Ok((name, bytes.slice(begin..local.position())))
}

fn wide_values(mut extra: &[u8]) -> Vec<u64> {
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(body) = extra.get(4..4 + length as usize) else { break };
        if id == 1 {
            return body.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        }
        extra = &extra[4 + length as usize..];
    }
    Vec::new()
}
