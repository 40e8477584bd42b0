//! The demo model: reference pictures, changes from the command line, refusals, listings.

use crate::common::{lattice, pixels, project};

/// The reference picture of a workflow of the demo model: 99.9 % of the values within 2 of 255.
fn equals_reference(name: &str) {
    let base = tempfile::tempdir().unwrap();
    let workflow = project(&format!("testdata/demo/{name}.json"));
    let input = project("testdata/demo");
    let run = ["run", workflow.to_str().unwrap(), "--input-dir", input.to_str().unwrap(), "--out", "results"];
    let output = lattice(base.path(), &run);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let got = pixels(&base.path().join(printed.trim()));
    let want = pixels(&project(&format!("testdata/demo/{name}.png")));
    assert_eq!((got.0, got.1), (want.0, want.1));
    let off = got.2.iter().zip(&want.2).filter(|(a, b)| a.abs_diff(**b) > 2).count();
    assert!(off * 1000 <= want.2.len(), "{off} of {} values differ by more than 2", want.2.len());
}

#[test]
fn text_to_image_with_euler() {
    equals_reference("apple_euler");
}

#[test]
fn text_to_image_with_an_ancestral_sampler() {
    equals_reference("smiley_euler_a");
}

#[test]
fn text_to_image_with_dpmpp_2m_karras() {
    equals_reference("cat_dpmpp_2m_karras");
}

#[test]
fn text_to_image_with_ddim_and_another_size() {
    equals_reference("house_ddim_wide");
}

#[test]
fn image_to_image() {
    equals_reference("img2img_heart");
}

#[test]
fn inpainting() {
    equals_reference("inpaint_smiley");
}

#[test]
fn a_picture_runs_again_and_changes_by_set_and_seed() {
    let base = tempfile::tempdir().unwrap();
    let workflow = project("examples/emoji.json");
    let first = lattice(base.path(), &["run", workflow.to_str().unwrap(), "--set", "KSampler.steps=2", "-q"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let first = base.path().join(String::from_utf8(first.stdout).unwrap().trim());
    // The saved picture carries the prompt with the changed step count.
    let again = lattice(base.path(), &["run", first.to_str().unwrap(), "--json"]);
    let lines = String::from_utf8(again.stdout).unwrap();
    let events: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = events.last().unwrap();
    let file = base.path().join(last["files"][0].as_str().unwrap());
    assert_ne!(first, file);
    assert_eq!(pixels(&first), pixels(&file));
    let other = lattice(base.path(), &["run", first.to_str().unwrap(), "--seed", "5", "-q"]);
    let other = base.path().join(String::from_utf8(other.stdout).unwrap().trim());
    assert_ne!(pixels(&first), pixels(&other));
}

#[test]
fn wrong_workflows_say_what_is_wrong() {
    let base = tempfile::tempdir().unwrap();
    let workflow = project("examples/emoji.json");
    let error = |args: &[&str]| {
        let output = lattice(base.path(), &[&["run", workflow.to_str().unwrap()], args].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = error(&["--set", "KSampler.steps=0"]);
    assert!(refused.contains("Value 0 smaller than min of 1"), "{refused}");
    assert!(error(&["--set", "KSampler.stps=1"]).contains("did you mean `steps`"));
    assert!(error(&["--set", "4.ckpt_name=none.safetensors"]).contains("ckpt_name"));
    std::fs::write(base.path().join("broken.json"), "{\"nodes\": 3").unwrap();
    let output = lattice(base.path(), &["run", "broken.json"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken.json"));
    assert!(!base.path().join("output").exists(), "nothing is written for a refused prompt");
}

#[test]
fn listings() {
    let base = tempfile::tempdir().unwrap();
    let text = |args: &[&str]| String::from_utf8(lattice(base.path(), args).stdout).unwrap();
    assert!(text(&["models"]).contains("lattice-demo-emoji.safetensors"));
    assert!(text(&["nodes"]).contains("KSampler"));
    assert!(text(&["nodes", "--coverage"]).contains("of 382 nodes"));
    assert!(text(&["nodes", "KSampler"]).contains("\"sampler_name\""));
    assert!(text(&["config"]).contains("baseDir"));
}

#[test]
fn an_editor_workflow_gives_the_same_picture() {
    let base = tempfile::tempdir().unwrap();
    let run = |file: &str| {
        let workflow = project(file);
        let output =
            lattice(base.path(), &["run", workflow.to_str().unwrap(), "--set", "KSampler.steps=2", "-q"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pixels(&base.path().join(String::from_utf8(output.stdout).unwrap().trim()))
    };
    assert_eq!(run("examples/emoji.workflow.json"), run("examples/emoji.json"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_lattice"))
        .args(["nodes", "KSampler"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn killed_at_any_moment_every_file_is_whole() {
    const MOMENTS: u32 = 24;
    let prompt = serde_json::json!({
        "i": {"class_type": "EmptyImage", "inputs": {"width": 700, "height": 500, "batch_size": 4, "color": 1234567}},
        "s": {"class_type": "SaveImage", "inputs": {"images": ["i", 0], "filename_prefix": "p"}},
    });
    let start = |base: &std::path::Path| {
        std::fs::write(base.join("p.json"), prompt.to_string()).unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_lattice"))
            .current_dir(base)
            .args(["run", "p.json", "-q"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    // The moments are spread over the time that a whole run takes on this machine.
    let whole = tempfile::tempdir().unwrap();
    let begin = std::time::Instant::now();
    assert!(start(whole.path()).wait().unwrap().success());
    let duration = begin.elapsed();

    let base = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for moment in 0..=MOMENTS {
        let mut child = start(base.path());
        std::thread::sleep(duration * moment / MOMENTS);
        child.kill().unwrap();
        child.wait().unwrap();
        let Ok(entries) = std::fs::read_dir(base.path().join("output")) else { continue };
        let files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "png")) {
            assert_eq!((pixels(file).0, pixels(file).1), (700, 500), "{}", file.display());
        }
        seen = files.len();
    }
    assert!(seen > 0, "no run came as far as writing a file");
}
