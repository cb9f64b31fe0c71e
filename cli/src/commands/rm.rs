//! `mllm4rec rm`: a job goes, with what no other job needs.

use std::time::Duration;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use coordinator::Error;
use coordinator::removal::{Freed, Kind, Limits, remove_job};
use data::store::Store;
use serde_json::json;

use crate::args::Rm;
use crate::lock::RootLock;
use crate::progress::grouped;
use crate::terminal::print;
use crate::{exit, target};

/// Removes a job.
pub(crate) async fn run(args: Rm) -> Result<u8> {
    let store = Store::open_existing(&args.root)?;
    let lock = RootLock::take(&store);
    let limits = Limits { dry_run: args.dry_run, in_use: lock.is_err(), older_than: Duration::ZERO };
    let job = match target::job_in(&store, &args.job).await {
        // A removal that was cut off goes on.
        Err(e) if matches!(e.downcast_ref(), Some(Error::Removed { .. })) => args.job.clone(),
        meant => meant?,
    };
    let freed = remove_job(&store, &job, limits).await?;
    if args.json {
        print_json(&store, &freed);
        return Ok(exit::DONE);
    }
    print_table(&freed);
    for kept in &freed.kept {
        print(format_args!("kept {}: job {} needs it", kept.name, kept.job));
    }
    let verb = if freed.dry_run { "would be removed" } else { "is removed" };
    print(format_args!("job {job} {verb}: {}", summary(&freed)));
    Ok(exit::DONE)
}

/// `1,234 objects, 5,678 bytes`
pub(super) fn summary(freed: &Freed) -> String {
    let (objects, bytes) = freed.total();
    format!("{} objects, {} bytes", grouped(objects), grouped(bytes))
}

pub(super) fn print_json(store: &Store, freed: &Freed) {
    let (objects, bytes) = freed.total();
    print(format_args!(
        "{:#}",
        json!({
            "root": store.url(), "dry_run": freed.dry_run, "objects": objects, "bytes": bytes,
            "removed": freed.removed, "kept": freed.kept,
        })
    ));
}

/// What went, a line each.
pub(super) fn print_table(freed: &Freed) {
    if freed.removed.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["what", "which", "objects", "bytes"]);
    for r in &freed.removed {
        let kind = match r.kind {
            Kind::Artifact => "tables and models",
            Kind::Job => "records of the job",
            Kind::Attempt => "unfinished attempts",
            Kind::Checkpoints => "old checkpoints",
            Kind::Scratch => "scratch",
        };
        table.add_row([kind.to_owned(), r.name.clone(), grouped(r.objects), grouped(r.bytes)]);
    }
    print(table);
}
