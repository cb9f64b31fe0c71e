//! `mllm4rec gc`: what nobody needs goes.

use anyhow::Result;
use coordinator::removal::{Limits, collect};
use data::store::Store;

use super::rm::{print_json, print_table, summary};
use crate::args::Gc;
use crate::exit;
use crate::lock::RootLock;
use crate::terminal::print;

/// Clears a root.
pub(crate) async fn run(args: Gc) -> Result<u8> {
    let store = Store::open_existing(&args.root)?;
    let lock = RootLock::take(&store);
    let limits = Limits { dry_run: args.dry_run, in_use: lock.is_err(), older_than: args.older_than };
    let freed = collect(&store, limits).await?;
    if args.json {
        print_json(&store, &freed);
        return Ok(exit::DONE);
    }
    print_table(&freed);
    let verb = if freed.dry_run { "could be removed" } else { "removed" };
    print(format_args!("{verb}: {}", summary(&freed)));
    if store.folder().is_none() {
        print("uploads that were cut off cannot be seen from here: let a lifecycle rule of the bucket end them");
    }
    Ok(exit::DONE)
}
