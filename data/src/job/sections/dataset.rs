//! `[dataset]`: the interactions.

use serde::Serialize;

use crate::job::reader::Section;

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
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
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
