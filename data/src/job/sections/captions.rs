//! `[captions]`: what pictures show, in words.

use serde::Serialize;
use serde_json::{Value, json};

use super::earlier_job;
use crate::job::reader::Section;

/// Raised when the same picture and checkpoint get another caption.
const CAPTIONER_VERSION: u32 = 3;

/// Where captions come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptionsFrom {
    /// No captions: every text is empty.
    None,
    /// A table of the user's own.
    Table,
    /// A BLIP-2 checkpoint describes the pictures.
    Blip2,
    /// An earlier job under the same root has them.
    Job(String),
}

impl CaptionsFrom {
    /// The word in specs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Table => "table",
            Self::Blip2 => "blip2",
            Self::Job(_) => "job",
        }
    }

    /// The earlier job, if they are from one.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        if let Self::Job(job) = self { Some(job) } else { None }
    }
}

/// The floats that the captioner's products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16, summed in 32 bits.
    Bf16,
}

/// What becomes of transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transparency {
    /// They are laid over white.
    White,
    /// They keep the colour that is stored under them.
    Drop,
}

/// `[captions]`
#[derive(Clone, Debug, PartialEq)]
pub struct Captions {
    /// Where they come from.
    pub from: CaptionsFrom,
    /// A Parquet or CSV with the columns item_id and caption.
    pub table: String,
    /// The folder of a BLIP-2 checkpoint in HF layout.
    pub model: String,
    /// Folder or URL prefix of the pictures.
    pub images: String,
    /// The most tokens of a caption.
    pub max_tokens: u32,
    /// The floats of the captioner.
    pub precision: Precision,
    /// Pictures that are described together.
    pub batch_size: u32,
    /// Items in one shard, the unit of work and of the table's parts.
    pub shard_items: u32,
    /// Whether pictures are turned as their EXIF data say.
    pub exif_rotation: bool,
    /// What becomes of transparent pixels.
    pub transparency: Transparency,
    /// Content hashes of pictures that stand for "no picture".
    pub placeholder_sha256: Vec<String>,
    /// A picture that more than this share of the items have stands for "no picture" too.
    pub placeholder_share: f64,
    /// The largest file that is decoded, in bytes.
    pub max_bytes: u64,
    /// The most pixels of a picture that is decoded.
    pub max_pixels: u64,
    /// How pictures are downloaded.
    pub fetch: Fetch,
}

/// The keys of `[captions]` that begin with `fetch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    /// Whether pictures that the items name by URL are downloaded.
    pub on: bool,
    /// Downloads at a time.
    pub concurrency: u32,
    /// Downloads at a time from one host.
    pub per_host: u32,
    /// Minutes for all downloads of a run.
    pub minutes: u32,
    /// Raised to ask again for what failed for a reason that may pass.
    pub round: u32,
    /// Hosts, or `host:port`, that may have private addresses.
    pub allow_hosts: Vec<String>,
}

impl Captions {
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
        let from: String = s.get("from", "none".to_owned());
        let precisions = [("f32", Precision::F32), ("bf16", Precision::Bf16)];
        let transparencies = [("white", Transparency::White), ("drop", Transparency::Drop)];
        let mut this = Self {
            from: captions_from(&s, &from),
            table: s.get("table", String::new()),
            model: s.get("model", String::new()),
            images: s.get("images", String::new()),
            max_tokens: s.number("max_tokens", 20, 1..=512),
            precision: s.choice("precision", Precision::F32, &precisions),
            batch_size: s.number("batch_size", 32, 1..=256),
            shard_items: s.number("shard_items", 512, 1..=65_536),
            exif_rotation: s.get("exif_rotation", true),
            transparency: s.choice("transparency", Transparency::White, &transparencies),
            placeholder_sha256: s.get("placeholder_sha256", Vec::new()),
            placeholder_share: s.number("placeholder_share", 0.05, 0.0..=1.0),
            max_bytes: s.number("max_bytes", 20 << 20, 1..=256 << 20),
            max_pixels: s.number("max_pixels", 50_000_000, 1..=200_000_000),
            fetch: Fetch {
                on: s.get("fetch", false),
                concurrency: s.number("fetch_concurrency", 16, 1..=256),
                per_host: s.number("fetch_per_host", 4, 1..=64),
                minutes: s.number("fetch_minutes", 360, 1..=10_080),
                round: s.number("fetch_round", 0, 0..=1_000_000),
                allow_hosts: s.get("fetch_allow_hosts", Vec::new()),
            },
        };
        this.placeholder_sha256.iter_mut().for_each(|hash| hash.make_ascii_lowercase());
        this.check(&s);
        s.finish();
        this
    }

    /// The keys that can change what is said about a picture. (Under another `max_pixels` a picture may be described that was
    /// too large: such an answer is not remembered.)
    #[must_use]
    pub fn captioner_keys(&self) -> Value {
        json!({
            "version": CAPTIONER_VERSION,
            "max_tokens": self.max_tokens,
            "precision": self.precision,
            "exif_rotation": self.exif_rotation,
            "transparency": self.transparency,
        })
    }

    fn check(&self, s: &Section<'_>) {
        if self.from == CaptionsFrom::Table && self.table.is_empty() {
            s.report(
                "table",
                "is missing: from = \"table\" needs a Parquet or CSV with the columns item_id and caption",
            );
        }
        if self.table.contains("://") && !self.table.starts_with("file://") {
            s.report(
                "table",
                format!("is {}: captions are read from local files only, copy it to this machine", self.table),
            );
        }
        if self.from == CaptionsFrom::Blip2 && self.model.is_empty() {
            s.report("model", "is missing: from = \"blip2\" needs the folder of a BLIP-2 checkpoint in HF layout");
        }
        if self.from == CaptionsFrom::Blip2 && self.images.is_empty() && !self.fetch.on {
            s.report(
                "images",
                "is missing: the folder or URL prefix of the pictures, or set fetch = true to download them",
            );
        }
        if let Err(e) = crate::pictures::fetch::check_hosts(&self.fetch.allow_hosts) {
            s.report("fetch_allow_hosts", e.to_string());
        }
        let hash = |h: &String| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(wrong) = self.placeholder_sha256.iter().find(|h| !hash(h)) {
            s.report("placeholder_sha256", format!("holds `{wrong}`, which is no SHA-256 in hexadecimal (64 digits)"));
        }
    }
}

fn captions_from(s: &Section<'_>, from: &str) -> CaptionsFrom {
    match (from, earlier_job(from)) {
        ("none", _) => CaptionsFrom::None,
        ("table", _) => CaptionsFrom::Table,
        ("blip2", _) => CaptionsFrom::Blip2,
        (_, Some(job)) if !job.is_empty() => CaptionsFrom::Job(job.to_owned()),
        (other, _) => {
            s.report("from", format!("`{other}` is not one of none, table, blip2, job:<id>"));
            CaptionsFrom::None
        }
    }
}
