//! A trained adapter elsewhere: exported for PEFT and for a job, merged into its base and no other.

use std::path::Path;

use mllm4rec_integration_tests::program::Workshop;
use serde_json::Value;

use super::earlier::finish;

#[test]
fn an_adapter_is_exported_and_merged_into_its_own_base() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let (id, _, _) = finish(&workshop, &job, "root", &[]);
    let root = workshop.path("root").display().to_string();
    let adapter = |action: &str, to: &str, more: &[&str]| {
        let to = workshop.path(to).display().to_string();
        workshop.call(&[&["adapter", action, &id, &to, "--root", &root], more].concat())
    };
    let _ = adapter("export", "exported", &[]).succeeded();
    let exported = workshop.path("exported");
    let config: Value = serde_json::from_slice(&std::fs::read(exported.join("adapter_config.json")).unwrap()).unwrap();
    let base = config["base_model_name_or_path"].as_str().unwrap().to_owned();
    assert!(Path::new(&base).is_absolute(), "{base}");
    assert_eq!(config["lora_dropout"].to_string(), "0.05");

    // What was fitted goes along, so that a job that takes the folder may ask for it.
    let folder = format!("ranker.from={}", exported.display());
    let taker = without_training(&workshop, &job);
    let (_, said, _) = finish(&workshop, &taker, "root", &[&folder, "ranker.blend=fitted"]);
    assert!(said["report"]["ranker"]["test"]["overall"]["ndcg@10"]["value"].is_number(), "{said}");
    std::fs::remove_file(exported.join("calibration.json")).unwrap();
    let args = ["run", &taker, "--root", &root, "--set", &folder, "--set", "ranker.calibrate=true"];
    let refused = workshop.call(&args);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("ranker.blend and ranker.calibrate"), "{}", refused.stderr);

    let told = adapter("merge", "merged", &["--dtype", "bf16"]).succeeded();
    assert!(told.stdout.contains("% of the weights that they change"), "{}", told.stdout);
    // A base of the same shape is another one all the same.
    let other = workshop.path("other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(&base).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    let same = adapter("merge", "copied", &["--base", other.to_str().unwrap()]).succeeded();
    assert!(same.stdout.contains("updated by"), "a copy of the base is the base: {}", same.stdout);
    let config = std::fs::read_to_string(other.join("config.json")).unwrap();
    std::fs::write(other.join("config.json"), format!("{config} ")).unwrap();
    let refused = adapter("merge", "refused", &["--base", other.to_str().unwrap()]);
    assert_eq!(refused.code, Some(64), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("differ in config.json") && refused.stderr.contains("--any-base"),
        "{}",
        refused.stderr
    );
    assert!(!workshop.path("refused").exists());
    let _ = adapter("merge", "forced", &["--base", other.to_str().unwrap(), "--any-base"]).succeeded();
}

/// The job without the keys that a ranker which is trained already does not take.
fn without_training(workshop: &Workshop, job: &str) -> String {
    let text = std::fs::read_to_string(job).unwrap();
    let (others, ranker) = text.split_once("[ranker]").unwrap();
    let of_training = ["negatives", "batch_size", "warmup_steps", "max_steps", "validate_every"];
    let kept = ranker.lines().filter(|line| !of_training.iter().any(|key| line.starts_with(key)));
    let path = workshop.path("taker.toml");
    std::fs::write(&path, format!("{others}[ranker]{}", kept.collect::<Vec<_>>().join("\n"))).unwrap();
    path.display().to_string()
}
