//! `[output]`, `[limits]` and `[cluster]`: where and with what a job runs.

use crate::job::literals::{MaxRejected, parse_bytes};
use crate::job::publish::Place;
use crate::job::reader::Section;

/// `[output]`: where everything goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The root of all tables, models and control objects.
    pub root: String,
    /// Where finished rankings, or candidates where nothing is ranked, are copied, if anywhere.
    pub publish: Option<Place>,
}

impl Output {
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
        let root = s.get("root", "file://./runs".to_owned());
        let publish = s.optional::<String>("publish").and_then(|url| match Place::parse(&url, &root) {
            Ok(place) => Some(place),
            Err(message) => {
                s.report("publish", message);
                None
            }
        });
        s.finish();
        Self { root, publish }
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
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
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

/// `[cluster]`
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Workers that `mllm4rec run` starts on this machine.
    pub workers: u32,
    /// The card that `mllm4rec plan` plans for.
    pub card: String,
    /// What an hour of it costs, in whatever money.
    pub card_hour: f64,
}

impl Cluster {
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            workers: s.number("workers", 1, 1..=1024),
            card: s.get("card", String::new()),
            card_hour: s.number("card_hour", 0.0, 0.0..=1e6),
        };
        s.finish();
        this
    }
}
