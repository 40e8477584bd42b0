//! Files written read back as they were; broken ones are errors, never panics.

use std::io::Write;

use lattice_media::webp::Compression;
use lattice_media::{Limits, MediaError, Pixels, animation, decode, metadata, pixels, png, webp};
use proptest::prelude::*;

fn picture(channels: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Pixels> {
    (1..20usize, 1..20usize, channels).prop_flat_map(|(width, height, channels)| {
        prop::collection::vec(any::<u8>(), width * height * channels).prop_map(move |data| Pixels {
            width,
            height,
            channels,
            data,
        })
    })
}

fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-z]{1,20}", "[ -~é☃]{0,60}"), 0..3)
}

proptest! {
    #[test]
    fn png_round_trip(p in picture(1..=4), texts in texts(), level in 0u8..=9) {
        let file = png::encode(&p, &texts, level).unwrap();
        let mut read = metadata::read(&file);
        read.sort();
        let mut wanted = texts;
        wanted.sort();
        prop_assert_eq!(read, wanted);
        let decoded = decode::decode(&file, Limits::default()).unwrap();
        prop_assert_eq!(decoded.size(), (p.width, p.height));
        let frame = &decoded.frames[0];
        let (colors, has_alpha) = if p.channels > 2 { (3, p.channels == 4) } else { (1, p.channels == 2) };
        for (i, sample) in p.data.chunks_exact(p.channels).enumerate() {
            let rgb = &frame.rgb[3 * i..3 * i + 3];
            prop_assert!((0..3).all(|c| rgb[c] == sample[c.min(colors - 1)]));
            prop_assert_eq!(frame.alpha.as_ref().map(|a| a[i]), has_alpha.then(|| sample[p.channels - 1]));
        }
    }

    #[test]
    fn webp_round_trip(
        first in picture(1..=4),
        frames in 1..4usize,
        texts in texts(),
        method in 0u8..=6,
    ) {
        // Opaque: colours of transparent pixels are not kept.
        let opaque = |p: &Pixels, seed: u8| {
            let mut p = p.clone();
            for pixel in p.data.chunks_exact_mut(p.channels) {
                let colors = if p.channels.is_multiple_of(2) { p.channels - 1 } else { p.channels };
                pixel[..colors].iter_mut().for_each(|v| *v = v.wrapping_add(seed));
                if colors < p.channels { pixel[colors] = 255 }
            }
            p
        };
        let pictures: Vec<Pixels> = (0..frames).map(|i| opaque(&first, i as u8 * 77)).collect();
        let compression = Compression { lossless: true, quality: 20.0, method };
        let file = webp::encode(&pictures, 40, &texts, compression).unwrap();
        prop_assert_eq!(metadata::read(&file), texts);
        let decoded = decode::decode(&file, Limits::default()).unwrap();
        prop_assert_eq!((decoded.frames.len(), decoded.size()), (frames, (first.width, first.height)));
        for (frame, p) in decoded.frames.iter().zip(&pictures) {
            for (rgb, sample) in frame.rgb.chunks_exact(3).zip(p.data.chunks_exact(p.channels)) {
                let colors = if p.channels > 2 { 3 } else { 1 };
                let wanted: Vec<u8> = (0..3).map(|c| sample[c.min(colors - 1)]).collect();
                prop_assert_eq!(rgb, wanted);
            }
        }
    }

    #[test]
    fn damaged_files_never_panic(p in picture(3..=4), at: prop::sample::Index, byte: u8, cut: bool) {
        let texts = [("prompt".to_owned(), "{}".to_owned())];
        let files = [
            png::encode(&p, &texts, 4).unwrap(),
            animation::encode_png(
                &[p.clone(), Pixels { data: vec![7; p.data.len()], ..p.clone() }], 100, &texts, 1,
            ).unwrap(),
            webp::encode(
                &[p.clone(), Pixels { data: vec![7; p.data.len()], ..p.clone() }],
                100,
                &texts,
                Compression { lossless: false, quality: 50.0, method: 0 },
            ).unwrap(),
        ];
        for mut file in files {
            let at = at.index(file.len());
            if cut { file.truncate(at) } else { file[at] = byte }
            let _ = decode::decode(&file, Limits::default());
            metadata::read(&file);
        }
    }

    #[test]
    fn quantising_and_back_keeps_8_bit_values(p in picture(3..=3)) {
        let images = pixels::to_images(std::slice::from_ref(&p)).unwrap();
        // v / 255 * 255 may fall just short of v, and truncation then gives v - 1, as in the reference.
        let back = pixels::from_images(&images).unwrap();
        prop_assert!(back[0].data.iter().zip(&p.data).all(|(&a, &b)| a == b || a + 1 == b));
    }
}

#[test]
fn metadata_chunks_stand_uncompressed_right_after_the_header() {
    let p = Pixels { width: 1, height: 1, channels: 3, data: vec![1, 2, 3] };
    let file = png::encode(&p, &[("prompt".into(), "{\"a\": 1}".into())], 4).unwrap();
    assert_eq!(&file[12..16], b"IHDR");
    assert_eq!(&file[33 + 4..33 + 8 + 15], b"tEXtprompt\0{\"a\": 1}");
}

#[test]
fn animation_keeps_frames_and_its_chunk_after_the_pixels() {
    let frame = |v| Pixels { width: 2, height: 2, channels: 3, data: vec![v; 12] };
    let texts = [("prompt".to_owned(), "{}".to_owned())];
    let file = animation::encode_png(&[frame(1), frame(1), frame(9)], 125, &texts, 4).unwrap();
    let decoded = decode::decode(&file, Limits::default()).unwrap();
    let firsts: Vec<u8> = decoded.frames.iter().map(|f| f.rgb[0]).collect();
    assert_eq!(firsts, [1, 9]);
    assert_eq!(metadata::read(&file), texts);
    let find = |name: &[u8]| file.windows(4).position(|w| w == name).unwrap();
    assert!(find(b"comf") > find(b"fdAT"));
    let control = find(b"fcTL") + 4;
    // The equal pair is one frame of 250 ms.
    assert_eq!(file[control + 20..control + 24], [0, 250, 3, 232]);
}

#[test]
fn webp_files_move_and_lose_only_what_they_may() {
    let compression = |lossless| Compression { lossless, quality: 80.0, method: 4 };
    let gradient = |seed: usize| Pixels {
        width: 32,
        height: 24,
        channels: 4,
        data: (0..32 * 24).flat_map(|i| [(i % 32 * 8) as u8, (i / 32 * 10 + seed) as u8, 90, 255]).collect(),
    };
    let texts = [("prompt".to_owned(), "{}".to_owned()), ("workflow".to_owned(), "[1]".to_owned())];
    let lossy = webp::encode(&[gradient(0), gradient(9)], 125, &texts, compression(false)).unwrap();
    assert_eq!(metadata::read(&lossy), texts);
    let decoded = decode::decode(&lossy, Limits::default()).unwrap();
    assert_eq!(decoded.frames.len(), 2);
    for (frame, p) in decoded.frames.iter().zip([gradient(0), gradient(9)]) {
        let off = frame.rgb.chunks_exact(3).zip(p.data.chunks_exact(4));
        let off = off.flat_map(|(a, b)| (0..3).map(|c| u64::from(a[c].abs_diff(b[c])))).sum::<u64>();
        assert!(off > 0 && off < 5 * 32 * 24 * 3, "{off} off in all");
    }
    // Every frame header holds its time in milliseconds after position and size.
    let times: Vec<_> = lossy
        .windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"ANMF")
        .map(|(at, _)| lossy[at + 8 + 12])
        .collect();
    assert_eq!(times, [125, 125]);
    let mut clear = gradient(0);
    clear.data[3] = 0;
    let still = webp::encode(&[clear], 125, &texts, compression(true)).unwrap();
    assert_eq!(metadata::read(&still), texts);
    let decoded = decode::decode(&still, Limits::default()).unwrap();
    assert_eq!(decoded.frames[0].alpha.as_ref().map(|a| (a[0], a[1])), Some((0, 255)));
}

#[test]
fn what_no_webp_file_can_hold_is_an_error() {
    let compression = Compression { lossless: true, quality: 80.0, method: 4 };
    let p = |width, height, channels| Pixels {
        width,
        height,
        channels,
        data: vec![0; width * height * channels],
    };
    assert!(webp::encode(&[], 100, &[], compression).is_err());
    assert!(webp::encode(&[p(2, 2, 3), p(2, 1, 3)], 100, &[], compression).is_err());
    assert!(webp::encode(&[p(16_384, 1, 3)], 100, &[], compression).is_err());
    assert!(webp::encode(&[p(0, 1, 3)], 100, &[], compression).is_err());
    assert!(webp::encode(&[p(1, 1, 5)], 100, &[], compression).is_err());
    assert!(webp::encode(&[Pixels { data: vec![], ..p(1, 1, 3) }], 100, &[], compression).is_err());
}

#[test]
fn oversized_claims_are_refused_before_decoding() {
    let p = Pixels { width: 1, height: 1, channels: 3, data: vec![1, 2, 3] };
    let mut file = png::encode(&p, &[], 4).unwrap();
    file[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
    let crc = {
        let mut c = flate2::Crc::new();
        c.update(&file[12..29]);
        c.sum()
    };
    file[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(decode::decode(&file, Limits::default()), Err(MediaError::TooLarge { .. })));
    assert!(matches!(decode::decode(b"hello", Limits::default()), Err(MediaError::UnknownFormat)));
}

#[test]
fn wide_gray_is_divided_by_255_and_cut() {
    let decoded =
        decode::decode(&raw_png(3, 1, 16, 0, &[], &[0, 0, 254, 1, 0, 255, 255]), Limits::default()).unwrap();
    assert_eq!(decoded.frames[0].rgb, [0, 0, 0, 1, 1, 1, 255, 255, 255]);
}

#[test]
fn palette_transparency_makes_a_mask_and_a_colour_key_does_not() {
    let palette = [(*b"PLTE", vec![10, 20, 30, 40, 50, 60]), (*b"tRNS", vec![255, 51])];
    let decoded = decode::decode(&raw_png(2, 1, 8, 3, &palette, &[0, 0, 1]), Limits::default()).unwrap();
    assert_eq!(decoded.frames[0].rgb, [10, 20, 30, 40, 50, 60]);
    assert_eq!(decoded.mask().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0 - 0.2]);

    let keyed = raw_png(2, 1, 8, 2, &[(*b"tRNS", vec![0, 1, 0, 2, 0, 3])], &[0, 1, 2, 3, 4, 5, 6]);
    let decoded = decode::decode(&keyed, Limits::default()).unwrap();
    assert_eq!(decoded.mask().unwrap().dims(), [1, 64, 64]);
    let alpha = decoded.channel(decode::Channel::Alpha).unwrap().flatten_all().unwrap();
    assert_eq!(alpha.to_vec1::<f32>().unwrap(), [1.0, 0.0]);
}

#[test]
fn exif_turns_the_picture_upright() {
    // 2x1 picture whose EXIF says: turn clockwise to see it upright.
    let mut exif = b"MM\0*\0\0\0\x08\0\x01".to_vec();
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
    let file = raw_png(2, 1, 8, 0, &[(*b"eXIf", exif)], &[0, 1, 2]);
    let decoded = decode::decode(&file, Limits::default()).unwrap();
    assert_eq!(decoded.size(), (1, 2));
    assert_eq!(decoded.frames[0].rgb, [1, 1, 1, 2, 2, 2]);
}

/// A PNG from its parts: filtered rows are given as they are.
fn raw_png(w: u32, h: u32, depth: u8, color: u8, chunks: &[([u8; 4], Vec<u8>)], rows: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: [u8; 4], data: &[u8]| {
        file.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        file.extend(body);
        file.extend(crc.sum().to_be_bytes());
    };
    let header = [&w.to_be_bytes()[..], &h.to_be_bytes(), &[depth, color, 0, 0, 0]].concat();
    chunk(*b"IHDR", &header);
    for (kind, data) in chunks {
        chunk(*kind, data);
    }
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(rows).unwrap();
    chunk(*b"IDAT", &encoder.finish().unwrap());
    chunk(*b"IEND", &[]);
    file
}
