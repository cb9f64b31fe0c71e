//! rank: the candidates of every user in the ranker's order.

use std::path::PathBuf;

use data::artifact::{Digest, model_prefix};
use data::dataset::Holdout;
use data::job::{self, Split, Stage};
use data::store::Store;
use data::tables::{CandidateRow, RankingRow, Reader};
use kernels::Device;
use model::ranker::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Quantize, Ranker, SharedPrefix, Trainable};
use serde_json::json;

use crate::ahead::ahead;
use crate::asking::{Asking, Question};
use crate::context::{Context, Output};
use crate::kept::Kept;
use crate::population::{Population, User, open_table, read_shard};
use crate::ranking::{Prompts, options};
use crate::since::{EarlierRankings, Since};
use crate::{Error, Result};
use eight_bits::{Agreement, Compared};
use ordering::Ordering;

mod eight_bits;
mod ordering;
#[cfg(test)]
mod tests;

/// Users between two looks at the clock and at the stop signal.
const USERS: usize = 32;

/// The note of how alike answers in eight bits are.
const FP8: &str = "fp8";

/// What all shards of an artifact share.
struct Ranking {
    split: Split,
    population: Population,
    prompts: Prompts,
    ranker: Ranker,
    /// How alike its answers in eight bits are, where the job wants those.
    agreement: Option<Agreement>,
    shared: Option<SharedPrefix>,
    device: Device,
    ordering: Ordering,
    candidates: Reader<CandidateRow>,
    earlier: Since<EarlierRankings>,
}

/// Makes the rankings of some shards.
pub(crate) fn run(cx: &mut Context, shards: &[u32], device: &Device, kept: &mut Kept) -> Result<()> {
    let ranking = kept.or_open(cx, |cx| Ranking::open(cx, device))?;
    for shard in shards {
        if !cx.is_done(*shard)? {
            ranking.shard(cx, *shard)?;
        }
    }
    Ok(())
}

impl Ranking {
    fn open(cx: &mut Context, device: &Device) -> Result<Self> {
        let split = cx.split.ok_or_else(|| Error::Unknown { what: "rankings without a split".to_owned() })?;
        let population = Population::open(cx)?;
        let prompts = Prompts::open(cx, &population)?;
        let ordering = Ordering::of(cx)?;
        let candidates = open_table(cx, Stage::Retrieve, &cx.input(Stage::Retrieve, Some(split))?)?;
        let earlier = EarlierRankings::open(cx, &population, &prompts, split)?;
        let (mut ranker, mut agreement) = (load(cx, device)?, None);
        if cx.job.ranker.fp8 {
            let asking = asking(cx, &prompts, &population);
            let compared = Compared { asking, ordering: &ordering, candidates: &candidates, split };
            let copied = match &earlier {
                Since::Rows(rows) => Some(rows.artifact()),
                Since::Never | Since::Everybody(_) => None,
            };
            let (cut, found) = eight_bits::cut(cx, device, &compared, copied, ranker)?;
            (ranker, agreement) = (cut, Some(found));
        }
        let (shared, device) = (prompts.share(&ranker)?, device.clone());
        Ok(Self { split, population, prompts, ranker, agreement, shared, device, ordering, candidates, earlier })
    }

    fn shard(&mut self, cx: &mut Context, shard: u32) -> Result<()> {
        let Self { split, population, prompts, ranker, agreement, shared, device, ordering, candidates, earlier } =
            self;
        let users = population.shard(cx, shard as usize)?;
        let candidates = read_shard(cx, candidates, shard as usize, &users, |r: &CandidateRow| &r.user_id)?;
        if candidates.is_empty() && !users.is_empty() {
            return cx.put_aside::<RankingRow>(shard, users.into_iter().map(|user| user.id));
        }
        let fates = earlier
            .fates(users.len(), |rows| rows.fates(cx, population, (&users, &candidates), prompts.shown(), shard))?;
        let (copied, total) = (fates.copied(), users.len() as u64);
        let mut rows = Vec::with_capacity(users.len() - copied);
        cx.progress(copied as u64, total, "users", || fates.note());
        let asked = fates.rescored(users.iter().zip(&candidates));
        let asking = asking(cx, prompts, population);
        let make = |asked| {
            let questions = questions(population, asked, *split)?;
            let begun = asking.begin(&questions)?;
            Ok((asked, questions, begun))
        };
        ahead(device, asked.chunks(USERS), make, |(asked, questions, begun), waiting| {
            cx.check()?;
            let logits = asking.logits(ranker, shared.as_ref(), &questions, &begun)?;
            rows.extend(asked.iter().zip(logits).map(|((_, row), logits)| ordering.row(row, &logits)));
            let note = || format!("{}{:.0} % waiting for prompts", separated(fates.note()), 100.0 * waiting.share());
            cx.progress((copied + rows.len()) as u64, total, "users", note);
            Ok(())
        })?;
        let mut output = Output::default();
        output.stats.rows = total;
        fates.describe(&mut output.stats);
        output.stats.notes.extend(agreement.as_ref().map(|agreement| (FP8.to_owned(), json!(agreement))));
        if prompts.cleaned() > 0 {
            tracing::warn!(
                texts = prompts.cleaned(),
                "titles or captions held marks of the tokenizer or invisible characters"
            );
        }
        let rows = fates.merge(rows);
        cx.part(&mut output, &rows, shard, cx.plan.shards)?;
        cx.commit(shard, output)
    }
}

fn asking<'a>(cx: &Context, prompts: &'a Prompts, population: &'a Population) -> Asking<'a> {
    Asking { prompts, population, orders: cx.job.ranker.permutations as usize }
}

/// Loads the ranker that a task's artifact was planned with: base and adapter, or a whole checkpoint.
fn load(cx: &Context, device: &Device) -> Result<Ranker> {
    let (store, prefix, whole) = source(cx)?;
    let file = |name: &str| cx.wait(store.get(&join(&prefix, name)));
    if whole {
        let folder = copy_checkpoint(cx, &store, &prefix)?;
        let mut options = options(&cx.job, !device.is_cpu())?;
        (options.trainable, options.quantize) = (Trainable::Nothing, Quantize::None);
        return Ok(Ranker::load(&folder, options, device)?);
    }
    let mut ranker = Ranker::load(cx.job.ranker.base.as_ref(), options(&cx.job, !device.is_cpu())?, device)?;
    let config = String::from_utf8_lossy(&file(ADAPTER_CONFIG_FILE)?).into_owned();
    ranker.load_adapter(&config, &file(ADAPTER_WEIGHTS_FILE)?)?;
    Ok(ranker)
}

/// Where the files of the ranker lie, and whether it is a whole checkpoint.
fn source(cx: &Context) -> Result<(Store, String, bool)> {
    let Some(folder) = cx.job.ranker.from.folder() else {
        let prefix = model_prefix(Stage::TrainRanker, &cx.input(Stage::TrainRanker, None)?);
        return Ok((cx.store.clone(), prefix, cx.job.ranker.trainable == job::Trainable::Full));
    };
    let adapter = cx.spec.inputs.contains_key(&format!("ranker:{ADAPTER_CONFIG_FILE}"));
    Ok((Store::open_existing(folder)?, String::new(), !adapter))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

/// A checkpoint is memory-mapped, so it is brought to the local disk first. One is kept there: that of the last ranker.
fn copy_checkpoint(cx: &Context, store: &Store, prefix: &str) -> Result<PathBuf> {
    let copies = cx.spool.join("checkpoints");
    let folder = copies.join(identity(cx)?);
    let io = |e: std::io::Error| data::Error::Spool { path: folder.display().to_string(), reason: e.to_string() };
    if copies.exists() && !folder.exists() {
        std::fs::remove_dir_all(&copies).map_err(io)?;
    }
    std::fs::create_dir_all(&folder).map_err(io)?;
    for name in ["config.json", "model.safetensors"] {
        let path = folder.join(name);
        if !path.exists() {
            let bytes = cx.wait(store.get(&join(prefix, name)))?;
            // Under another name first: a file that is there is whole.
            let draft = path.with_extension("draft");
            std::fs::write(&draft, &bytes).map_err(io)?;
            std::fs::rename(&draft, &path).map_err(io)?;
        }
    }
    Ok(folder)
}

/// A name for all that decides what a checkpoint is: its files where they are the user's, and who has trained it. What was
/// removed and trained again has the digest that it had, and may be another one.
fn identity(cx: &Context) -> Result<String> {
    let roles = cx.spec.inputs.iter().filter(|(role, _)| role.contains("ranker"));
    let inputs: Vec<String> = roles.map(|(role, digest)| format!("{role} {digest}")).collect();
    let decides = format!("{} {:?} {inputs:?}", cx.store.url(), cx.fits()?.trained_by);
    Ok(Digest::of_bytes(decides.as_bytes()).short().to_owned())
}

/// What is asked about some users.
fn questions(population: &Population, asked: &[(&User, &CandidateRow)], split: Split) -> Result<Vec<Question>> {
    let question = |(user, row): &(&User, &CandidateRow)| {
        let history = Holdout::of(&user.items, split).history.to_vec();
        Ok(Question { who: user.id.clone(), history, candidates: numbers(population, row)? })
    };
    asked.iter().map(question).collect()
}

/// A note before another one.
fn separated(note: String) -> String {
    if note.is_empty() { note } else { format!("{note}, ") }
}

/// The candidates of a row as numbers.
pub(crate) fn numbers(population: &Population, row: &CandidateRow) -> Result<Vec<u32>> {
    let number = |id: &String| {
        let unknown = || data::Error::UnknownItem { user: row.user_id.clone(), item: id.clone() };
        population.catalogue.index(id).ok_or_else(|| unknown().into())
    };
    row.items.iter().map(number).collect()
}
