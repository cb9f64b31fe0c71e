//! `mllm4rec show`: why one user gets what they get.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use comfy_table::Table as Grid;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use coordinator::records::{self, StageRecord};
use data::artifact::done_records;
use data::job::{Split, Stage, nearest};
use data::store::Store;
use data::tables::{CandidateRow, CaptionRow, HistoryRow, ItemRow, RankingRow, Reader, Row, Table, read_all};
use serde_json::{Value, json};

use crate::args::Show;
use crate::terminal::print;
use crate::{exit, target};

/// What is known of one user.
struct Story {
    history: HistoryRow,
    target: Option<String>,
    candidates: CandidateRow,
    ranking: Option<RankingRow>,
    titles: BTreeMap<String, String>,
    captions: BTreeMap<String, String>,
}

/// Shows one user of a job.
pub(crate) async fn run(args: Show) -> Result<u8> {
    let store = Store::open_existing(&args.root)?;
    let job_id = target::job_in(&store, &args.job).await?;
    let stages = records::stages(&store, &job_id).await?;
    let split = split(&stages, args.split.as_deref())?;
    let story = Story::read(&store, &stages, split, &args.user).await?;
    if args.json {
        print(format_args!("{:#}", story.json(split)));
    } else {
        story.print(split, &args.user);
    }
    Ok(exit::DONE)
}

/// The split that was asked for, or the last one of the job that people look at.
fn split(stages: &[StageRecord], asked: Option<&str>) -> Result<Split> {
    let there: Vec<Split> = stages
        .iter()
        .filter(|s| s.stage == Stage::Retrieve)
        .filter_map(|s| s.split)
        .filter(|s| *s != Split::Train)
        .collect();
    let names = || there.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    match asked {
        Some(name) => {
            let found = there.iter().find(|s| s.as_str() == name).copied();
            let unknown = || exit::BadRequest(format!("the job has no split `{name}`; it has {}", names()));
            found.ok_or_else(|| unknown().into())
        }
        None => {
            let best = [Split::Test, Split::All, Split::Validation].into_iter().find(|s| there.contains(s));
            best.ok_or_else(|| not_there("retrieve"))
        }
    }
}

/// A stage that the job does not have.
fn not_there(stage: &str) -> anyhow::Error {
    anyhow::Error::new(exit::BadRequest(format!(
        "the job has no stage `{stage}`, so there are no candidates to show: add it to `stages` and run the job again"
    )))
}

impl Story {
    async fn read(store: &Store, stages: &[StageRecord], split: Split, user: &str) -> Result<Self> {
        let of = |stage: Stage, split: Option<Split>| stages.iter().find(|s| s.is(stage, split));
        let prepare = of(Stage::Prepare, None).ok_or_else(|| not_there("prepare"))?;
        let retrieve = of(Stage::Retrieve, Some(split)).ok_or_else(|| not_there("retrieve"))?;
        let (shard, history) = find_history(store, prepare, user).await?;
        let candidates: CandidateRow = find(store, retrieve, shard, |r: &CandidateRow| r.user_id == user).await?;
        let ranking = match of(Stage::Rank, Some(split)) {
            Some(rank) => Some(find(store, rank, shard, |r: &RankingRow| r.user_id == user).await?),
            None => None,
        };
        let items: Vec<ItemRow> = read_all(store, &prepare.artifact().table_prefix(Table::Items)).await?;
        let captions: Vec<CaptionRow> = match of(Stage::Caption, None) {
            Some(stage) => read_all(store, &stage.artifact().table_prefix(Table::Captions)).await?,
            None => Vec::new(),
        };
        let (seen, target) = match split {
            Split::Test => (history.items.len() - 1, history.items.last().cloned()),
            Split::Validation => (history.items.len() - 2, history.items.get(history.items.len() - 2).cloned()),
            Split::Train | Split::All => (history.items.len(), None),
        };
        let mut history = history;
        history.items.truncate(seen);
        let titles = items.into_iter().map(|i| (i.item_id, i.title)).collect();
        let captions = captions.into_iter().map(|c| (c.item_id, c.caption)).collect();
        Ok(Self { history, target, candidates, ranking, titles, captions })
    }

    fn title(&self, item: &str) -> String {
        let title = self.titles.get(item).map_or(item, String::as_str);
        match self.captions.get(item).filter(|c| !c.is_empty()) {
            Some(caption) => format!("{title} — {caption}"),
            None => title.to_owned(),
        }
    }

    fn print(&self, split: Split, user: &str) {
        print(format_args!("user {user}, {split}: {} items of history", self.history.items.len()));
        let shown = self.history.items.len().saturating_sub(20);
        if shown > 0 {
            print(format_args!("  … {shown} earlier"));
        }
        for item in &self.history.items[shown..] {
            print(format_args!("  {item:>10}  {}", self.title(item)));
        }
        if let Some(target) = &self.target {
            let rank = self.candidates.items.iter().position(|c| c == target);
            let place = rank.map_or("not among the candidates".to_owned(), |r| format!("candidate {}", r + 1));
            print(format_args!("held out\n  {target:>10}  {}  ({place})", self.title(target)));
        }
        print(format_args!("{}", self.grid()));
    }

    /// Candidates in the ranker's order, or in the retriever's where nothing was ranked.
    fn grid(&self) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(UTF8_BORDERS_ONLY);
        match &self.ranking {
            Some(ranking) => {
                grid.set_header(["rank", "before", "probability", "item", "title"]);
                for (i, item) in ranking.items.iter().enumerate() {
                    let probability = ranking.probabilities.get(i).map_or_else(String::new, |p| format!("{p:.3}"));
                    let before = ranking.retriever_ranks.get(i).map_or_else(String::new, ToString::to_string);
                    grid.add_row([(i + 1).to_string(), before, probability, self.mark(item), self.title(item)]);
                }
            }
            None => {
                grid.set_header(["rank", "score", "item", "title"]);
                for (i, item) in self.candidates.items.iter().enumerate() {
                    let score = self.candidates.scores.get(i).map_or_else(String::new, |s| format!("{s:.3}"));
                    grid.add_row([(i + 1).to_string(), score, self.mark(item), self.title(item)]);
                }
            }
        }
        grid
    }

    fn mark(&self, item: &str) -> String {
        if self.target.as_deref() == Some(item) { format!("{item} ◄") } else { item.to_owned() }
    }

    fn json(&self, split: Split) -> Value {
        let named =
            |item: &String| json!({"item": item, "title": self.titles.get(item), "caption": self.captions.get(item)});
        json!({
            "user": self.history.user_id,
            "split": split.as_str(),
            "history": self.history.items.iter().map(named).collect::<Vec<_>>(),
            "held_out": self.target.as_ref().map(named),
            "candidates": self.candidates.items.iter().zip(&self.candidates.scores)
                .map(|(item, score)| json!({"item": item, "title": self.titles.get(item), "score": score})).collect::<Vec<_>>(),
            "ranking": self.ranking.as_ref().map(|r| r.items.iter().enumerate().map(|(i, item)| json!({
                "item": item, "title": self.titles.get(item), "logit": r.scores.get(i),
                "probability": r.probabilities.get(i), "retriever_rank": r.retriever_ranks.get(i),
            })).collect::<Vec<_>>()),
        })
    }
}

/// The shard of a user and the row. Parts are read in order until the user, or the place where it would be, is passed.
async fn find_history(store: &Store, prepare: &StageRecord, user: &str) -> Result<(usize, HistoryRow)> {
    let reader: Reader<HistoryRow> = Reader::open(store, &prepare.artifact().table_prefix(Table::Histories)).await?;
    let mut known = Vec::new();
    for shard in 0..reader.len() {
        let rows = reader.part(shard).await?;
        let last = rows.last().is_some_and(|r| r.user_id.as_str() >= user);
        known.extend(rows.iter().map(|r| r.user_id.clone()).take(10_000));
        if let Some(row) = rows.into_iter().find(|r| r.user_id == user) {
            return Ok((shard, row));
        }
        if last {
            break;
        }
    }
    let users: u64 = done_records(store, &prepare.artifact()).await?.iter().map(|d| d.rows).sum();
    let hint =
        nearest(user, known.iter().map(String::as_str)).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
    Err(anyhow::Error::new(exit::BadRequest(format!("there is no user {user} among the {users} of this job{hint}"))))
}

/// The row of a user in a shard of another table of the same users.
async fn find<R: Row>(store: &Store, stage: &StageRecord, shard: usize, wanted: impl Fn(&R) -> bool) -> Result<R> {
    let reader: Reader<R> = Reader::open(store, &stage.artifact().table_prefix(R::TABLE)).await?;
    let row = reader.part(shard).await?.into_iter().find(|r| wanted(r));
    row.with_context(|| format!("the {} table has no row for this user", R::TABLE.name()))
}
