//! `mllm4rec outputs`: where the tables and models of a job lie.

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use coordinator::records;
use data::artifact::{Done, done_records, is_complete};
use data::store::Store;
use serde_json::{Value, json};

use crate::args::Outputs;
use crate::progress::grouped;
use crate::terminal::print;
use crate::{exit, target};

/// Where jobs run that are given no root.
pub(crate) const DEFAULT_ROOT: &str = "file://./runs";

/// A folder of a job.
struct Folder {
    name: String,
    split: String,
    path: String,
    rows: Option<u64>,
    bytes: u64,
    /// Whether all of it is there.
    complete: bool,
}

/// Lists the outputs of a job, or the jobs.
pub(crate) async fn run(args: Outputs) -> Result<u8> {
    // Without a coordinator that somebody has named there is none to ask.
    let root = args.root.as_deref().or((!args.reach.is_given()).then_some(DEFAULT_ROOT));
    let store = target::store(root, &args.reach).await?;
    let Some(job) = &args.job else { return list_jobs(&store, args.json).await };
    let job = target::job_in(&store, job).await?;
    let folders = folders(&store, &job).await?;
    if args.json {
        let split = |f: &Folder| (!f.split.is_empty()).then(|| f.split.clone());
        let rows: Vec<Value> = folders
            .iter()
            .map(|f| {
                json!({
                    "table": f.name, "split": split(f), "folder": f.path, "rows": f.rows, "bytes": f.bytes,
                    "complete": f.complete,
                })
            })
            .collect();
        print(format_args!("{:#}", Value::Array(rows)));
        return Ok(exit::DONE);
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["table", "split", "rows", "bytes", "folder"]);
    for f in folders {
        let rows = f.rows.map(grouped).unwrap_or_default();
        let path = if f.complete { f.path } else { format!("{} (unfinished)", f.path) };
        table.add_row([f.name, f.split, rows, grouped(f.bytes), path]);
    }
    print(table);
    Ok(exit::DONE)
}

async fn list_jobs(store: &Store, json: bool) -> Result<u8> {
    let mut jobs = Vec::new();
    for job in records::list(store).await? {
        let finished = store.exists(&coordinator::report::path(&job)).await?;
        jobs.push((job, finished));
    }
    if json {
        let jobs: Vec<Value> = jobs.iter().map(|(job, finished)| json!({"job": job, "finished": finished})).collect();
        print(format_args!("{:#}", Value::Array(jobs)));
    } else if jobs.is_empty() {
        print(format_args!("no job has run under {}", store.url()));
    } else {
        for (job, finished) in jobs {
            print(format_args!("{job}  {}", if finished { "finished" } else { "not finished" }));
        }
    }
    Ok(exit::DONE)
}

async fn folders(store: &Store, job: &str) -> Result<Vec<Folder>> {
    let mut folders: Vec<Folder> = Vec::new();
    for stage in records::stages(store, job).await? {
        let split = stage.split.map(|s| s.to_string()).unwrap_or_default();
        let (mut of_stage, id) = (Vec::new(), stage.artifact());
        let complete = is_complete(store, &id).await?;
        for done in done_records(store, &id).await? {
            let trial = stage.trial.as_ref().map_or_else(String::new, |trial| format!("[{trial}]"));
            add(store, &mut of_stage, &split, &done, &format!("{}{trial}", stage.stage));
        }
        folders.extend(of_stage.into_iter().map(|folder| Folder { complete, ..folder }));
    }
    Ok(folders)
}

/// Adds up the parts of every folder.
fn add(store: &Store, folders: &mut Vec<Folder>, split: &str, done: &Done, stage: &str) {
    let parts = done.parts.iter().map(|p| (p.table.name().to_owned(), &p.path, Some(p.rows), p.bytes));
    let files = done.files.iter().map(|f| (format!("{stage} (model)"), &f.path, None, f.bytes));
    for (name, path, rows, bytes) in parts.chain(files) {
        let folder = store.name(path.rsplit_once('/').map_or(path.as_str(), |(folder, _)| folder));
        match folders.iter_mut().find(|f| f.path == folder) {
            Some(known) => {
                known.bytes += bytes;
                known.rows = known.rows.zip(rows).map(|(a, b)| a + b);
            }
            None => {
                folders.push(Folder { name, split: split.to_owned(), path: folder, rows, bytes, complete: false });
            }
        }
    }
}
