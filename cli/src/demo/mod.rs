//! The demo's world: a made-up shop with drawn pictures, and models small enough to travel inside the program.

mod drawing;
mod reading;
mod rng;
mod scene;
mod shop;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data::job::Job;

pub(crate) use reading::Reading;
pub(crate) use shop::{Settings, Shop};

/// A shop's files in its folder.
const INTERACTIONS: &str = "interactions.csv";
const PICTURES: &str = "pictures";

/// The job that the demo runs.
const JOB: &str = include_str!("../../../configs/demo.toml");
const TEMPLATE: &str = include_str!("../../../configs/prompts/demo.jinja");

/// A Llama of 0.7 million parameters, trained on shops of other seeds by `tools/demo-base/train_base.py`.
const BASE: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../../models/demo-base/config.json")),
    ("model.safetensors", include_bytes!("../../../models/demo-base/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../models/demo-base/tokenizer.json")),
];

/// A BLIP-2 of 0.7 million parameters, trained on pictures of shops of other seeds by
/// `tools/demo-captioner/train_captioner.py`.
const CAPTIONER: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../../models/demo-captioner/config.json")),
    ("generation_config.json", include_bytes!("../../../models/demo-captioner/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../models/demo-captioner/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../../../models/demo-captioner/preprocessor_config.json")),
    ("tokenizer.json", include_bytes!("../../../models/demo-captioner/tokenizer.json")),
];

/// The demo's files on this machine.
pub(crate) struct World {
    folder: PathBuf,
    /// What is in it.
    pub(crate) shop: Shop,
}

impl World {
    /// Makes the shop of a seed and writes it and the models into a folder.
    pub(crate) fn write(folder: &Path, seed: u64) -> Result<Self> {
        let world = Self { folder: folder.to_owned(), shop: Shop::new(seed, &Settings::default()) };
        write_shop(&world.shop, folder)?;
        make_folder(&world.captioner())?;
        for (name, bytes) in CAPTIONER {
            put(&world.captioner().join(name), bytes)?;
        }
        make_folder(&world.base())?;
        for (name, bytes) in BASE {
            put(&world.base().join(name), bytes)?;
        }
        Ok(world)
    }

    /// The demo's job over these files, with captions or without.
    pub(crate) fn job(&self, root: &str, seed: u64, with_captions: bool) -> Result<Job> {
        let text = |value: &Path| toml::Value::String(value.display().to_string());
        let mut sets = vec![
            format!("output.root={}", toml::Value::String(root.to_owned())),
            format!("seed={seed}"),
            format!("dataset.path={}", text(&self.interactions())),
            format!("captions.model={}", text(&self.captioner())),
            format!("captions.images={}", text(&self.pictures())),
            format!("ranker.base={}", text(&self.base())),
        ];
        if !with_captions {
            sets.extend(["name=demo-no-captions".to_owned(), "captions.from=none".to_owned()]);
        }
        let mut job = Job::parse("the demo's job", JOB, &sets)?;
        job.inline_template(TEMPLATE.to_owned());
        Ok(job)
    }

    fn interactions(&self) -> PathBuf {
        self.folder.join(INTERACTIONS)
    }

    fn pictures(&self) -> PathBuf {
        self.folder.join(PICTURES)
    }

    fn captioner(&self) -> PathBuf {
        self.folder.join("captioner")
    }

    fn base(&self) -> PathBuf {
        self.folder.join("base")
    }
}

/// Writes a shop's interactions and pictures into a folder.
pub(crate) fn write_shop(shop: &Shop, folder: &Path) -> Result<()> {
    make_folder(&folder.join(PICTURES))?;
    put(&folder.join(INTERACTIONS), shop.interactions_csv().as_bytes())?;
    for (id, png) in shop.pictures() {
        put(&folder.join(PICTURES).join(format!("{id}.png")), &png)?;
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// Writes a file unless it is there already, so that its time of change stays.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
