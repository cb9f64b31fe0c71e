//! `mllm4rec runs compare`: jobs beside each other, or the trials of one.

mod figures;
mod trials;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use data::store::Store;
use serde_json::{Value, json};

use crate::args::Compare;
use crate::commands::outputs::DEFAULT_ROOT;
use crate::tables::cell;
use crate::terminal::print;
use crate::{exit, target};
use figures::{Entry, overlapping, read, sort, varied};

/// Behind the best.
const BEST: &str = " ◄";

/// Compares jobs, or the trials of each.
pub(crate) async fn run(args: Compare) -> Result<u8> {
    let root = args.root.as_deref().or((!args.reach.is_given()).then_some(DEFAULT_ROOT));
    let store = target::store(root, &args.reach).await?;
    if args.trials {
        return trials::run(&store, &args.jobs, args.json).await;
    }
    let (entries, missing) = gather(&store, &args).await?;
    if entries.is_empty() {
        let reasons: Vec<String> = missing.iter().map(|(job, why)| format!("{job}: {why}")).collect();
        return Err(exit::BadRequest(format!("there is nothing to compare: {}", reasons.join("; "))).into());
    }
    if args.json {
        print(format_args!("{:#}", json_of(&args, &entries, &missing)));
        return Ok(exit::DONE);
    }
    print(format_args!("{} of {} users, 95 % intervals, best first\n{}", args.metric, args.split, table(&entries)));
    if let Some(words) = overlapping(&entries) {
        print(words);
    }
    for (job, why) in missing {
        print(format_args!("not compared: {job}: {why}"));
    }
    Ok(exit::DONE)
}

/// The jobs that can be compared, best first, and why others cannot.
async fn gather(store: &Store, args: &Compare) -> Result<(Vec<Entry>, Vec<(String, String)>)> {
    let (mut entries, mut missing) = (Vec::<Entry>::new(), Vec::new());
    for job in &args.jobs {
        match read(store, job, &args.split, &args.metric).await {
            Ok(entry) if entries.iter().any(|known| known.job == entry.job) => {}
            Ok(entry) => entries.push(entry),
            Err(e) if exit::code_of(&e) == exit::BAD_CONFIG => missing.push((job.clone(), format!("{e:#}"))),
            // A store that is away says nothing about a job.
            Err(e) => return Err(e),
        }
    }
    sort(&mut entries);
    Ok((entries, missing))
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let keys = varied(entries);
    let ranked = entries.iter().any(|entry| !entry.ranker.is_null());
    let systems = ["retriever", "ranker"].into_iter().take(1 + usize::from(ranked)).map(str::to_owned);
    table.set_header(std::iter::once("job".to_owned()).chain(keys.iter().cloned()).chain(systems));
    for (place, entry) in entries.iter().enumerate() {
        let mut cells = vec![format!("{}{}{}", entry.job, if place == 0 { BEST } else { "" }, entry.swept())];
        cells.extend(keys.iter().map(|key| entry.setting(key)));
        cells.push(cell(&entry.retriever));
        cells.extend(ranked.then(|| cell(&entry.ranker)));
        table.add_row(cells);
    }
    table
}

fn json_of(args: &Compare, entries: &[Entry], missing: &[(String, String)]) -> Value {
    let keys = varied(entries);
    let entry = |(place, entry): (usize, &Entry)| {
        let settings = keys.iter().map(|key| (key.clone(), entry.settings.get(key).cloned().unwrap_or_default()));
        json!({
            "job": entry.job,
            "best": place == 0,
            "settings": settings.collect::<serde_json::Map<_, _>>(),
            "trials": entry.trials,
            "retriever": entry.retriever,
            "ranker": entry.ranker,
        })
    };
    let missing = missing.iter().map(|(job, why)| json!({"job": job, "reason": why}));
    json!({
        "metric": args.metric,
        "split": args.split,
        "jobs": entries.iter().enumerate().map(entry).collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
    })
}
