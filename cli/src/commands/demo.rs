//! `mllm4rec demo`: the whole pipeline on a made-up shop, with captions and without.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use data::store::Store;
use serde_json::{Value, json};

use crate::args::Demo;
use crate::commands::report;
use crate::commands::run::{End, run_job};
use crate::demo::World;
use crate::progress::{Printer, clock};
use crate::{exit, tables};

/// Makes the shop, runs both jobs and compares them.
pub(crate) async fn run(args: Demo) -> Result<u8> {
    let started = Instant::now();
    let printer = Printer::new();
    let store = Store::open(&args.root)?;
    let folder = folder(&args.root);
    let world = World::write(&folder, args.seed)?;
    printer.line(&format!("a shop of seed {} in {}", args.seed, folder.display()));
    let mut reports = Vec::new();
    for with_captions in [true, false] {
        printer.line(if with_captions { "ranking with captions" } else { "the same without captions" });
        let job = world.job(&args.root, args.seed, with_captions)?;
        let End::Done(finished) = run_job(&job, &store, args.workers, &printer).await? else {
            return Ok(exit::INTERRUPTED);
        };
        reports.push(report(&store, &finished.job).await?);
    }
    let [with, without] = &reports[..] else { unreachable!("two jobs were run") };
    if args.json {
        println!("{:#}", json!({"root": store.url(), "with_captions": with, "without_captions": without}));
        return Ok(exit::DONE);
    }
    print!("{}", tables::render(with));
    println!("with and without captions, test, N@10\n{}\n", tables::compare(with, without));
    println!("{}\n", claim(with, without));
    println!(
        "done in {}; look at a customer: mllm4rec show {} --user u00001 --root {}",
        clock(started.elapsed()),
        with["job"].as_str().unwrap_or_default(),
        store.url()
    );
    Ok(exit::DONE)
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
