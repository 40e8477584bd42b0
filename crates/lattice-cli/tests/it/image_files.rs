//! Pictures in and out of files: animations, folders, captures.

use std::path::Path;

use lattice_media::{Limits, Pixels, decode, metadata, png};
use serde_json::{Value as Json, json};

use crate::common::{lattice, make, pixels};
use crate::families::checkpoint;

fn save(base: &Path, name: &str, width: usize, height: usize, value: u8) {
    let path = base.join("input").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = Pixels { width, height, channels: 3, data: vec![value; 3 * width * height] };
    std::fs::write(path, png::encode(&picture, &[], 1).unwrap()).unwrap();
}

/// Files that a prompt makes; what it says if it fails.
fn run(base: &Path, prompt: &Json) -> Result<Vec<String>, String> {
    std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "prompt.json", "-q"]);
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
    } else {
        let text = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
        Err(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn animations_keep_frames_and_the_prompt() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let color = |color: u32| {
        json!({"class_type": "EmptyImage", "inputs": {
        "width": 24, "height": 16, "batch_size": 1, "color": color}})
    };
    let mut prompt = json!({
        "a": color(0x00ff_0000),
        "b": color(0x0000_00ff),
        "j": {"class_type": "ImageBatch", "inputs": {"image1": ["a", 0], "image2": ["b", 0]}},
        "s": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["j", 0], "filename_prefix": "film/w",
            "fps": 8.0, "lossless": true, "quality": 80, "method": "fastest"}},
    });
    let files = run(base, &prompt).unwrap();
    assert!(files.len() == 1 && files[0].ends_with("film/w_00001_.webp"), "{files:?}");
    let file = std::fs::read(base.join(&files[0])).unwrap();
    let decoded = decode::decode(&file, Limits::default()).unwrap();
    let first: Vec<[bool; 3]> = decoded.frames.iter().map(|f| [0, 1, 2].map(|c| f.rgb[c] > 250)).collect();
    assert_eq!(first, [[true, false, false], [false, false, true]]);
    let texts = metadata::read(&file);
    let kept: Json = serde_json::from_str(&texts[0].1).unwrap();
    assert_eq!((texts[0].0.as_str(), &kept["s"]["class_type"]), ("prompt", &json!("SaveAnimatedWEBP")));
    // The file is a workflow too.
    let again = lattice(base, &["run", &files[0], "-q"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));

    for (method, lossless) in [("default", false), ("slowest", true)] {
        prompt["s"]["inputs"]["method"] = json!(method);
        prompt["s"]["inputs"]["lossless"] = json!(lossless);
        let file = std::fs::read(base.join(&run(base, &prompt).unwrap()[0])).unwrap();
        assert_eq!(decode::decode(&file, Limits::default()).unwrap().frames.len(), 2);
    }
}

#[test]
fn folders_are_batches() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    save(base, "set/a.png", 12, 8, 250);
    save(base, "set/b.PNG", 6, 10, 100);
    std::fs::write(base.join("input/set/notes.txt"), "none").unwrap();
    let of = |method: &str| {
        let prompt = json!({
            "l": {"class_type": "LoadImageSetFromFolderNode", "inputs": {"folder": "set", "resize_method": method}},
            "s": {"class_type": "SaveImage", "inputs": {"images": ["l", 0], "filename_prefix": method}},
        });
        run(base, &prompt).map(|files| files.iter().map(|f| pixels(&base.join(f))).collect::<Vec<_>>())
    };
    let refused = of("None").unwrap_err();
    assert!(refused.contains("b.PNG") && refused.contains("6x10"), "{refused}");
    for (method, grey) in [("Stretch", 96), ("Crop", 48), ("Pad", 48)] {
        let pictures = of(method).unwrap();
        assert_eq!(pictures.len(), 2, "{method}");
        let (width, height, second) = &pictures[1];
        assert_eq!((*width, *height), (12, 8), "{method}");
        let count = second.chunks(3).filter(|p| p[0] == 100 || p[0] == 99).count();
        assert_eq!(count, grey, "{method}");
        assert_eq!(second[0] > 0, method != "Pad", "{method}: the corner");
    }
    let empty = json!({"l": {"class_type": "LoadImageSetFromFolderNode", "inputs": {"folder": "../set"}},
        "s": {"class_type": "SaveImage", "inputs": {"images": ["l", 0], "filename_prefix": "x"}}});
    assert!(run(base, &empty).is_err(), "a folder outside of the input folder");
}

#[test]
fn folders_with_captions_are_prompts() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    save(base, "train/z.png", 16, 16, 10);
    save(base, "train/3_fox/a.png", 8, 8, 200);
    std::fs::write(base.join("input/train/3_fox/a.txt"), "a fox\n").unwrap();
    let mut prompt = checkpoint("sd15");
    let more = json!({
        "l": {"class_type": "LoadImageTextSetFromFolderNode", "inputs": {
            "folder": "train", "clip": ["m", 1], "resize_method": "Stretch", "width": 8, "height": -1}},
        "s": {"class_type": "SaveImage", "inputs": {"images": ["l", 0], "filename_prefix": "t"}},
        "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "k": {"class_type": "KSampler", "inputs": {
            "model": ["m", 0], "seed": 3, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple",
            "positive": ["l", 1], "negative": ["l", 1], "latent_image": ["e", 0], "denoise": 1.0}},
        "d": {"class_type": "VAEDecode", "inputs": {"samples": ["k", 0], "vae": ["m", 2]}},
        "o": {"class_type": "SaveImage", "inputs": {"images": ["d", 0], "filename_prefix": "o"}},
    });
    prompt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let files = run(base, &prompt).unwrap();
    let sizes: Vec<_> = files
        .iter()
        .filter(|f| !f.contains("o_0"))
        .map(|f| pixels(&base.join(f)))
        .map(|(w, h, p)| (w, h, p[0]))
        .collect();
    // One picture of the folder and three times that of the folder in it, as wide as asked for, as high as the first.
    assert_eq!(sizes.len(), 4, "{files:?}");
    assert!(sizes.iter().all(|&(w, h, _)| (w, h) == (8, 16)), "{sizes:?}");
    assert!(sizes[0].2 < 20 && sizes[1..].iter().all(|s| s.2 > 190), "{sizes:?}");
}

#[test]
fn captures_are_pictures() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    save(base, "cam.png", 5, 4, 77);
    let prompt = |image: &str| {
        json!({
            "w": {"class_type": "WebcamCapture", "inputs": {
                "image": image, "width": 0, "height": 0, "capture_on_queue": true}},
            "s": {"class_type": "SaveImage", "inputs": {"images": ["w", 0], "filename_prefix": "w"}},
        })
    };
    let files = run(base, &prompt("cam.png")).unwrap();
    let (width, height, _) = pixels(&base.join(&files[0]));
    assert_eq!((width, height), (5, 4));
    assert!(run(base, &prompt("none.png")).is_err());
}
