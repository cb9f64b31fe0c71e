//! `[captions]`: what pictures show, in words.

use serde::Serialize;

use crate::job::reader::Section;

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
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
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
