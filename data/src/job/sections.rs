//! The sections of a job file as checked types, with their defaults.

use serde::Serialize;

use super::literals::{MaxRejected, parse_bytes};
use super::reader::Section;

/// `[output]`: where everything goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The root of all tables, models and control objects.
    pub root: String,
    /// Where finished rankings are copied, if anywhere.
    pub publish: Option<String>,
}

impl Output {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let this = Self { root: s.get("root", "file://./runs".to_owned()), publish: s.optional("publish") };
        if this.publish.is_some() {
            s.report(
                "publish",
                "copying finished tables elsewhere is not there yet: read them at their folder, see `mllm4rec outputs`",
            );
        }
        s.finish();
        this
    }
}

/// `[limits]`: what a stage may lose and use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How many rows of the input may be rejected.
    pub max_rejected: MaxRejected,
    /// The memory of sorts and joins, in bytes.
    pub memory_bytes: u64,
}

impl Limits {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let max_rejected =
            literal(&mut s, "max_rejected", "1%", MaxRejected::parse, "a number of rows or a share such as \"1%\"");
        let memory_bytes = literal(&mut s, "memory", "4GiB", parse_bytes, "a size such as \"4GiB\"");
        s.finish();
        Self { max_rejected, memory_bytes }
    }
}

fn literal<T>(s: &mut Section<'_>, key: &'static str, default: &str, parse: fn(&str) -> Option<T>, allowed: &str) -> T {
    let text = match s.optional_string(key) {
        Some(text) => text,
        None => s.optional::<u64>(key).map_or_else(|| default.to_owned(), |n| n.to_string()),
    };
    parse(&text).unwrap_or_else(|| {
        s.report(key, format!("is {text:?}, expected {allowed}"));
        parse(default).expect("the default is well formed")
    })
}

/// The layout of an interaction log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// MovieLens: ratings.csv and movies.csv.
    Movielens,
    /// Amazon reviews 2014: headerless ratings and metadata of Python literals.
    #[serde(rename = "amazon-2014")]
    Amazon2014,
    /// Amazon reviews 2018: JSON lines.
    #[serde(rename = "amazon-2018")]
    Amazon2018,
    /// Amazon reviews 2023: JSON lines.
    #[serde(rename = "amazon-2023")]
    Amazon2023,
    /// One user and its items in time order a line.
    Sequences,
    /// Any CSV or Parquet with named columns.
    Table,
}

/// `[dataset]`: the interactions and how they are filtered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dataset {
    /// The layout of the files.
    pub format: Format,
    /// A folder or a file.
    #[serde(skip)]
    pub path: String,
    /// The k-core: fewer interactions of a user than this, and the user is dropped.
    pub min_interactions_per_user: u32,
    /// The k-core: fewer interactions of an item than this, and the item is dropped.
    pub min_interactions_per_item: u32,
    /// Interactions rated lower are dropped.
    pub min_rating: f64,
    /// The column names of `format = "table"`.
    pub columns: Columns,
    /// Users in one shard, the unit of work and of a table's parts.
    pub shard_users: u32,
}

impl Dataset {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let formats = [
            ("movielens", Format::Movielens),
            ("amazon-2014", Format::Amazon2014),
            ("amazon-2018", Format::Amazon2018),
            ("amazon-2023", Format::Amazon2023),
            ("sequences", Format::Sequences),
            ("table", Format::Table),
        ];
        let format = s.choice("format", Format::Table, &formats);
        let this = Self {
            format,
            path: s.required("path", "the folder or file of the interactions, for example --set dataset.path=PATH"),
            min_interactions_per_user: s.number("min_interactions_per_user", 5, 0..=1_000_000),
            min_interactions_per_item: s.number("min_interactions_per_item", 5, 0..=1_000_000),
            min_rating: s.number("min_rating", 0.0, f64::MIN..=f64::MAX),
            columns: Columns::read(s.section("columns")),
            shard_users: s.number("shard_users", 4096, 1..=1_000_000),
        };
        s.finish();
        this
    }
}

/// `[dataset.columns]`: the names of the columns of `format = "table"`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Columns {
    /// The user's id.
    pub user: String,
    /// The item's id.
    pub item: String,
    /// When it happened: seconds, milliseconds or a timestamp.
    pub time: Option<String>,
    /// The item's title.
    pub title: Option<String>,
    /// The item's picture.
    pub image: Option<String>,
    /// The rating.
    pub rating: Option<String>,
}

impl Columns {
    fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            user: s.get("user", "user".to_owned()),
            item: s.get("item", "item".to_owned()),
            time: s.optional("time"),
            title: s.optional("title"),
            image: s.optional("image"),
            rating: s.optional("rating"),
        };
        s.finish();
        this
    }
}

/// Where captions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionsFrom {
    /// No captions: every text is empty.
    None,
    /// A table of the user's own.
    Table,
}

/// `[captions]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Captions {
    /// Where they come from.
    pub from: CaptionsFrom,
    /// A Parquet or CSV with the columns item_id and caption.
    #[serde(skip)]
    pub table: String,
}

impl Captions {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let from: String = s.get("from", "none".to_owned());
        let this = Self { from: captions_from(&s, &from), table: s.get("table", String::new()) };
        // Known to the format, used by the captioner.
        s.get("model", String::new());
        s.get("images", String::new());
        s.get("fetch", false);
        s.get("max_tokens", 20_u32);
        s.get("placeholder_sha256", Vec::<String>::new());
        if this.from == CaptionsFrom::Table && this.table.is_empty() {
            s.report(
                "table",
                "is missing: from = \"table\" needs a Parquet or CSV with the columns item_id and caption",
            );
        }
        if this.table.contains("://") && !this.table.starts_with("file://") {
            s.report(
                "table",
                format!("is {}: captions are read from local files only, copy it to this machine", this.table),
            );
        }
        s.finish();
        this
    }
}

fn captions_from(s: &Section<'_>, from: &str) -> CaptionsFrom {
    match from {
        "none" => CaptionsFrom::None,
        "table" => CaptionsFrom::Table,
        "blip2" => {
            s.report(
                "from",
                "`blip2` is not there yet: use from = \"table\" with captions made elsewhere, or \"none\"",
            );
            CaptionsFrom::None
        }
        job if job.starts_with("job:") => {
            s.report(
                "from",
                "captions of an earlier job cannot be named yet: set from = \"table\" and table to the Parquet part in its captions folder",
            );
            CaptionsFrom::None
        }
        other => {
            s.report("from", format!("`{other}` is not one of none, table"));
            CaptionsFrom::None
        }
    }
}

/// `[retriever]`: LRURec and its training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retriever {
    /// Width of the embeddings.
    pub hidden: u32,
    /// Number of recurrent blocks.
    pub layers: u32,
    /// Dropout rate.
    pub dropout: f64,
    /// Longest history that is read.
    pub max_length: u32,
    /// Training sequences in a batch.
    pub batch_size: u32,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Passes over the training sequences at most.
    pub max_epochs: u32,
    /// Steps between two validations.
    pub validate_every: u32,
    /// Validations without improvement before training stops.
    pub patience: u32,
    /// Whether early stopping looks at ranks without the user's own history.
    pub validation_excludes_history: bool,
    /// Candidates per user, K.
    #[serde(skip)]
    pub candidates: u32,
}

impl Retriever {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        only_train(&mut s);
        let this = Self {
            hidden: s.number("hidden", 64, 1..=4096),
            layers: s.number("layers", 2, 1..=64),
            dropout: rate(&mut s, "dropout", 0.2),
            max_length: s.number("max_length", 50, 1..=1_000_000),
            batch_size: s.number("batch_size", 64, 1..=1_000_000),
            learning_rate: s.number("learning_rate", 1e-3, 0.0..=10.0),
            weight_decay: s.number("weight_decay", 0.01, 0.0..=10.0),
            max_epochs: s.number("max_epochs", 500, 1..=1_000_000),
            validate_every: s.number("validate_every", 500, 1..=1_000_000_000),
            patience: s.number("patience", 20, 1..=1_000_000),
            validation_excludes_history: s.get("validation_excludes_history", false),
            candidates: s.number("candidates", 20, 1..=1000),
        };
        s.finish();
        this
    }
}

/// A probability below one.
fn rate(s: &mut Section<'_>, key: &'static str, default: f64) -> f64 {
    s.number(key, default, 0.0..=0.95)
}

fn only_train(s: &mut Section<'_>) {
    let from: String = s.get("from", "train".to_owned());
    if from != "train" {
        s.report("from", format!("is `{from}`, this build only knows \"train\""));
    }
}

/// Where the wrong candidates of a training prompt come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Any unseen items, as in the paper.
    Random,
    /// The retriever's best for the same prefix.
    Retrieved,
    /// Half of each.
    Mixed,
}

/// Which weights the ranker's training changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainable {
    /// Low-rank adapters only.
    Lora,
    /// All of them.
    Full,
}

/// How the frozen weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// 4-bit NormalFloat with double quantisation.
    Nf4,
    /// As they are in the checkpoint.
    None,
}

/// What candidates are called in the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// A, B, C …
    Letters,
    /// 1, 2, 3 …
    Numbers,
}

impl Labels {
    /// The name in the job file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Letters => "letters",
            Self::Numbers => "numbers",
        }
    }

    /// How many candidates can be told apart.
    #[must_use]
    pub fn max_candidates(self) -> u32 {
        match self {
            Self::Letters => 26,
            Self::Numbers => 999,
        }
    }
}

/// `ranker.lora`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lora {
    /// Rank of the adapters.
    pub rank: u32,
    /// Their output is scaled by alpha / rank.
    pub alpha: f64,
    /// Dropout on their input.
    pub dropout: f64,
    /// The projections that carry one.
    pub targets: Vec<String>,
}

impl Lora {
    const TARGETS: [(&'static str, &'static str); 7] = [
        ("q_proj", "q_proj"),
        ("k_proj", "k_proj"),
        ("v_proj", "v_proj"),
        ("o_proj", "o_proj"),
        ("gate_proj", "gate_proj"),
        ("up_proj", "up_proj"),
        ("down_proj", "down_proj"),
    ];

    fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            rank: s.number("rank", 8, 1..=1024),
            alpha: s.number("alpha", 32.0, 0.0..=1e6),
            dropout: rate(&mut s, "dropout", 0.05),
            targets: s
                .choices("targets", &["q_proj", "v_proj"], &Self::TARGETS)
                .into_iter()
                .map(str::to_owned)
                .collect(),
        };
        s.finish();
        this
    }
}

/// How many tokens of prompts are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatch {
    /// Left to the worker.
    Auto,
    /// This many tokens.
    Tokens(u32),
}

/// `[ranker]`: the prompt, the language model and its tuning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranker {
    /// HF folder of the base checkpoint; counts by content.
    #[serde(skip)]
    pub base: String,
    /// The prompt template: a path, or the text itself once [`super::Job::inline_template`] has run.
    pub template: String,
    /// The role sentence of the prompt.
    pub role: String,
    /// Items of history in a prompt at most.
    pub history: u32,
    /// Titles are cut at this many tokens.
    pub title_tokens: u32,
    /// Captions are cut at this many tokens.
    pub caption_tokens: u32,
    /// The longest prompt.
    pub max_prompt_tokens: u32,
    /// Where wrong candidates come from in training.
    pub negatives: Negatives,
    /// What is trained.
    pub trainable: Trainable,
    /// How frozen weights are held.
    pub quantize: Quantize,
    /// The adapters.
    pub lora: Lora,
    /// Examples in an optimiser step.
    pub batch_size: u32,
    /// Tokens in a micro-batch; shapes the work, not the result.
    #[serde(skip)]
    pub micro_batch: MicroBatch,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Passes over the training examples at most.
    pub max_epochs: u32,
    /// Steps at most; 0: no limit.
    pub max_steps: u32,
    /// Steps between two validations.
    pub validate_every: u32,
    /// Validations without improvement before training stops.
    pub patience: u32,
    /// What candidates are called.
    pub labels: Labels,
    /// Whether a ranker that is worse than the retriever's order on validation users fails the job.
    pub require_lift: bool,
}

impl Ranker {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        only_train(&mut s);
        let this = Self {
            base: s.get("base", String::new()),
            template: s.get("template", String::new()),
            role: s.get("role", String::new()),
            history: s.number("history", 20, 1..=10_000),
            title_tokens: s.number("title_tokens", 32, 1..=10_000),
            caption_tokens: s.number("caption_tokens", 32, 1..=10_000),
            max_prompt_tokens: s.number("max_prompt_tokens", 1536, 16..=1_000_000),
            negatives: s.choice(
                "negatives",
                Negatives::Random,
                &[("random", Negatives::Random), ("retrieved", Negatives::Retrieved), ("mixed", Negatives::Mixed)],
            ),
            trainable: s.choice("trainable", Trainable::Lora, &[("lora", Trainable::Lora), ("full", Trainable::Full)]),
            quantize: s.choice("quantize", Quantize::Nf4, &[("nf4", Quantize::Nf4), ("none", Quantize::None)]),
            lora: Lora::read(s.section("lora")),
            batch_size: s.number("batch_size", 16, 1..=1_000_000),
            micro_batch: micro_batch(&mut s),
            learning_rate: s.number("learning_rate", 1e-4, 0.0..=10.0),
            warmup_steps: s.number("warmup_steps", 100, 0..=1_000_000_000),
            max_epochs: s.number("max_epochs", 1, 1..=1_000_000),
            max_steps: s.number("max_steps", 0, 0..=1_000_000_000),
            validate_every: s.number("validate_every", 100, 1..=1_000_000_000),
            patience: s.number("patience", 10, 1..=1_000_000),
            labels: s.choice("labels", Labels::Letters, &[("letters", Labels::Letters), ("numbers", Labels::Numbers)]),
            require_lift: s.get("require_lift", false),
        };
        if this.trainable == Trainable::Full && this.quantize == Quantize::Nf4 {
            s.report("quantize", "is \"nf4\", but trainable = \"full\" changes all weights: set quantize = \"none\"");
        }
        s.finish();
        this
    }
}

fn micro_batch(s: &mut Section<'_>) -> MicroBatch {
    const KEY: &str = "micro_batch_tokens";
    if s.optional_string(KEY).as_deref() == Some("auto") || s.is_absent(KEY) {
        return MicroBatch::Auto;
    }
    MicroBatch::Tokens(s.number(KEY, 4096, 1..=100_000_000))
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Workers that `mllm4rec run` starts on this machine.
    pub workers: u32,
}

impl Cluster {
    pub(super) fn read(mut s: Section<'_>) -> Self {
        let this = Self { workers: s.number("workers", 1, 1..=1024) };
        s.finish();
        this
    }
}
