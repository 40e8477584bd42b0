//! Text that travels in picture files: the prompt and the workflow that made them.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::exif;

/// EXIF tag that holds `prompt:<json>` in WEBP files.
pub const PROMPT_TAG: u16 = 0x0110;

/// Longest text that a compressed chunk may unpack to.
const MAX_TEXT: u64 = 64 << 20;

/// `(keyword, text)` pairs of a PNG (`tEXt`, `zTXt`, `iTXt`, and `comf` of animations) or WEBP (EXIF) file, in order.
/// Anything else has none, and of a broken file those before the damage are given.
pub fn read(file: &[u8]) -> Vec<(String, String)> {
    if let Some(chunks) = file.strip_prefix(&PNG_SIGNATURE[..]) {
        png_chunks(chunks).filter_map(|(kind, data)| png_text(kind, data)).collect()
    } else if file.get(..4) == Some(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
        let entries = riff_chunks(&file[12..]).filter(|(kind, _)| kind == b"EXIF");
        let mut texts: Vec<_> = entries.flat_map(|(_, data)| exif::read(data)).collect();
        // The prompt has the highest tag, further keys the ones below it.
        texts.sort_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        let split =
            |(_, text): (u16, String)| text.split_once(':').map(|(k, v)| (k.to_owned(), v.to_owned()));
        texts.into_iter().filter_map(split).collect()
    } else {
        Vec::new()
    }
}

/// EXIF block of `(keyword, text)` pairs: the first at [`PROMPT_TAG`], the next ones at the tags below it.
pub fn to_exif(texts: &[(String, String)]) -> Vec<u8> {
    let entry = |(tag, (key, text)): (u16, &(String, String))| (tag, format!("{key}:{text}"));
    exif::write(&(0..=PROMPT_TAG).rev().zip(texts).map(entry).collect::<Vec<_>>())
}

/// First bytes of every PNG file.
pub(crate) const PNG_SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Chunks of a PNG file after its signature, up to the first that is cut off.
fn png_chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let data = tail.get(..length)?;
        rest = tail.get(length + 4..).unwrap_or_default();
        Some(([head[4], head[5], head[6], head[7]], data))
    })
}

fn png_text(kind: [u8; 4], data: &[u8]) -> Option<(String, String)> {
    let latin1 = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    let (keyword, rest) = split_nul(data)?;
    let text = match &kind {
        b"tEXt" => latin1(rest),
        b"comf" => String::from_utf8_lossy(rest).into_owned(),
        b"zTXt" => latin1(&inflate(rest.get(1..)?)?),
        b"iTXt" => {
            let (&compressed, rest) = rest.split_first()?;
            let (_language, rest) = split_nul(rest.get(1..)?)?;
            let (_translated, text) = split_nul(rest)?;
            let bytes = if compressed == 1 { inflate(text)? } else { text.to_vec() };
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return None,
    };
    Some((latin1(keyword), text))
}

fn split_nul(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|&b| b == 0)?;
    Some((&data[..at], &data[at + 1..]))
}

fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(data).take(MAX_TEXT + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MAX_TEXT).then_some(text)
}

/// Chunks of a RIFF body, up to the first that is cut off.
pub(crate) fn riff_chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let data = tail.get(..length)?;
        rest = tail.get(length.next_multiple_of(2)..).unwrap_or_default();
        Some(([head[0], head[1], head[2], head[3]], data))
    })
}
