//! Text that travels in picture files: the prompt and the workflow that made them.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::exif;

/// EXIF tag that holds `prompt:<json>` in WEBP files.
pub const PROMPT_TAG: u16 = 0x0110;

/// Bytes that the compressed chunks of a file may unpack to, all together.
const MAX_TEXT: u64 = 64 << 20;

/// `(keyword, text)` pairs of a PNG (`tEXt`, `zTXt`, `iTXt`, and `comf` of animations) or WEBP (EXIF) file, in order.
/// Anything else has none, of a broken file those before the damage are given, and texts that unpack to more than 64 MiB in all
/// are left out.
pub fn read(file: &[u8]) -> Vec<(String, String)> {
    if let Some(chunks) = file.strip_prefix(&PNG_SIGNATURE[..]) {
        let mut budget = MAX_TEXT;
        png_chunks(chunks).filter_map(|(kind, data)| png_text(kind, data, &mut budget)).collect()
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

fn png_text(kind: [u8; 4], data: &[u8], budget: &mut u64) -> Option<(String, String)> {
    let latin1 = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    let (keyword, rest) = split_nul(data)?;
    let text = match &kind {
        b"tEXt" => latin1(rest),
        b"comf" => String::from_utf8_lossy(rest).into_owned(),
        b"zTXt" => latin1(&inflate(rest.get(1..)?, budget)?),
        b"iTXt" => {
            let (&compressed, rest) = rest.split_first()?;
            let (_language, rest) = split_nul(rest.get(1..)?)?;
            let (_translated, text) = split_nul(rest)?;
            let bytes = if compressed == 1 { inflate(text, budget)? } else { text.to_vec() };
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

/// Unpacks a text and takes its length from the budget; what does not fit uses all of it up.
fn inflate(data: &[u8], budget: &mut u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let read = ZlibDecoder::new(data).take(*budget + 1).read_to_end(&mut text);
    let left = budget.checked_sub(text.len() as u64);
    *budget = left.unwrap_or(0);
    read.ok().and(left).map(|_| text)
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    #[test]
    fn many_small_chunks_cannot_unpack_to_more_than_one_may() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&vec![b'a'; MAX_TEXT as usize / 3]).unwrap();
        let chunk = [b"k\0\0", &zlib.finish().unwrap()[..]].concat();
        let mut file = PNG_SIGNATURE.to_vec();
        for _ in 0..5 {
            file.extend((chunk.len() as u32).to_be_bytes());
            file.extend(b"zTXt");
            file.extend(&chunk);
            file.extend([0; 4]);
        }
        assert_eq!(read(&file).len(), 3);
    }
}
