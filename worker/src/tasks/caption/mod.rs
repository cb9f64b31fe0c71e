//! caption: one text per item.

mod blip2;
mod describer;

use data::artifact::{Digest, table_prefix};
use data::captions::{Captions, carry_over, no_captions, read_captions};
use data::job::CaptionsFrom;
use data::tables::{CaptionRow, CaptionStatus, Table, read_all};
use kernels::Device;
use serde_json::json;

use crate::context::{Context, Output};
use crate::population::Population;
use crate::tasks::prepare::by_reason;
use crate::{Error, Result};

pub use describer::check_captioner;
pub(crate) use describer::forget;

/// Makes some shards of the captions table; captions that a user brings along, or none, are one shard.
pub(crate) fn run(cx: &mut Context, shards: &[u32], device: &Device) -> Result<()> {
    if cx.job.captions.from == CaptionsFrom::Blip2 {
        return blip2::run(cx, shards, device);
    }
    let population = Population::open(cx)?;
    let captions = match &cx.job.captions.from {
        CaptionsFrom::Table => read_captions(&cx.job.captions.table, &population.catalogue, &cx.job.limits)?,
        CaptionsFrom::Job(_) => carry_over(earlier(cx)?, &population.catalogue),
        _ => Captions { rows: no_captions(&population.catalogue), unknown: 0, rejected: Vec::new() },
    };
    let ok = captions.rows.iter().filter(|r| r.status == CaptionStatus::Ok).count();
    let mut output = Output::default();
    cx.part(&mut output, &captions.rows, 0, 1)?;
    output.stats.rows = captions.rows.len() as u64;
    output.stats.rejected = by_reason(&captions.rejected);
    output.stats.notes.insert("ok".to_owned(), json!(ok));
    output.stats.notes.insert("unknown_items".to_owned(), json!(captions.unknown));
    let total = captions.rows.len() as u64;
    cx.progress(total, total, "items", || format!("{ok} with a caption"));
    cx.commit(0, output)
}

/// The captions of the job that `captions.from` names.
fn earlier(cx: &Context) -> Result<Vec<CaptionRow>> {
    const ROLE: &str = "captions";
    let missing = || Error::Input { stage: cx.artifact.stage, role: ROLE.to_owned() };
    let digest: &Digest = cx.spec.inputs.get(ROLE).ok_or_else(missing)?;
    Ok(cx.wait(read_all(&cx.store, &table_prefix(Table::Captions, digest)))?)
}
