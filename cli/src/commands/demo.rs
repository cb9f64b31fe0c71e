//! `mllm4rec demo`: the whole pipeline on a made-up shop, with captions and without.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use coordinator::records::{self, StageRecord};
use data::job::{Split, Stage};
use data::store::Store;
use data::tables::{CaptionRow, HistoryRow, RankingRow, Row, Table, read_all};
use serde_json::{Value, json};

use crate::args::Demo;
use crate::commands::report;
use crate::commands::run::{End, Machine, run_job};
use crate::demo::{Reading, World};
use crate::lock::RootLock;
use crate::progress::{Printer, clock};
use crate::terminal::print;
use crate::{exit, tables};

/// Makes the shop, runs both jobs and compares them.
pub(crate) async fn run(args: Demo) -> Result<u8> {
    let started = Instant::now();
    let printer = Printer::new();
    let machine = Machine::new(args.workers, args.devices, &printer)?;
    let store = Store::open(&args.root)?;
    let _lock = RootLock::take(&store)?;
    let folder = folder(&args.root);
    let world = World::write(&folder, args.seed)?;
    printer.line(&format!("a shop of seed {} in {}", args.seed, folder.display()));
    let mut reports = Vec::new();
    for with_captions in [true, false] {
        printer.line(if with_captions { "ranking with captions" } else { "the same without captions" });
        let job = world.job(&args.root, args.seed, with_captions)?;
        let End::Done(finished) = run_job(&job, &store, &machine, &printer).await? else {
            return Ok(exit::INTERRUPTED);
        };
        reports.push(report(&store, &finished.job).await?);
    }
    let [with, without] = &reports[..] else { unreachable!("two jobs were run") };
    let job = with["job"].as_str().unwrap_or_default();
    let stages = records::stages(&store, job).await?;
    let reading = reading(&store, &stages, &world).await?;
    if args.json {
        let captions = json!({"pictures": reading.pictures, "exact": reading.exact, "shape": reading.shape});
        let figures =
            json!({"root": store.url(), "captions": captions, "with_captions": with, "without_captions": without});
        print(format_args!("{figures:#}"));
        return Ok(exit::DONE);
    }
    print(tables::render(with).trim_end());
    print("");
    print(format_args!("with and without captions, test, N@10\n{}\n", tables::compare(with, without)));
    print(reading);
    print(format_args!("{}\n", claim(with, without)));
    let customer = telling_customer(&store, &stages).await?.unwrap_or_else(|| "u00001".to_owned());
    print(format_args!(
        "done in {}; look at a customer: mllm4rec show {job} --user {customer} --root {}",
        clock(started.elapsed()),
        store.url()
    ));
    Ok(exit::DONE)
}

/// Somebody whose held-out item stood far down in the retriever's order and comes first in the ranker's.
async fn telling_customer(store: &Store, stages: &[StageRecord]) -> Result<Option<String>> {
    let histories: Vec<HistoryRow> = read(store, stages, (Stage::Prepare, None), Table::Histories).await?;
    let rankings: Vec<RankingRow> = read(store, stages, (Stage::Rank, Some(Split::Test)), Table::Rankings).await?;
    let held_out: BTreeMap<&str, Option<&String>> =
        histories.iter().map(|h| (h.user_id.as_str(), h.items.last())).collect();
    let telling = |r: &&RankingRow| {
        let first = r.items.first().zip(r.retriever_ranks.first());
        first.is_some_and(|(item, before)| *before >= 10 && held_out.get(r.user_id.as_str()) == Some(&Some(item)))
    };
    Ok(rankings.iter().find(telling).map(|r| r.user_id.clone()))
}

/// What was said of the pictures, beside what was drawn.
async fn reading(store: &Store, stages: &[StageRecord], world: &World) -> Result<Reading> {
    let captions: Vec<CaptionRow> = read(store, stages, (Stage::Caption, None), Table::Captions).await?;
    Ok(Reading::of(&world.shop, captions.iter().map(|row| (row.item_id.as_str(), row.caption.as_str()))))
}

/// All rows of a table that a stage of the demo's job wrote.
async fn read<R: Row>(
    store: &Store,
    stages: &[StageRecord],
    (stage, split): (Stage, Option<Split>),
    table: Table,
) -> Result<Vec<R>> {
    let found = stages.iter().find(|s| s.is(stage, split)).context("the demo's job lacks a stage")?;
    Ok(read_all(store, &found.artifact().table_prefix(table)).await?)
}

/// Beside the tables where the root is a local folder, else in the system's folder for temporary files.
fn folder(root: &str) -> PathBuf {
    match root.strip_prefix("file://").or_else(|| (!root.contains("://")).then_some(root)) {
        Some(path) => PathBuf::from(path).join("shop"),
        None => std::env::temp_dir().join("mllm4rec").join("shop"),
    }
}

/// Whether the run shows what the paper claims, said from its figures.
fn claim(with: &Value, without: &Value) -> String {
    let ranker = &with["ranker"]["test"]["overall"]["ndcg@10"];
    let order = &with["retriever_order"]["test"]["overall"]["ndcg@10"];
    let blind = &without["ranker"]["test"]["overall"]["ndcg@10"];
    format!(
        "ranker with captions against the retriever's order: {}\nranker with captions against the one without: {}",
        apart(ranker, order),
        apart(ranker, blind)
    )
}

fn apart(a: &Value, b: &Value) -> &'static str {
    let of = |v: &Value, key: &str| v[key].as_f64().unwrap_or(0.0);
    if of(a, "low") > of(b, "high") {
        "better, the intervals do not overlap"
    } else if of(a, "value") > of(b, "value") {
        "better, but the intervals overlap"
    } else {
        "NOT better"
    }
}
