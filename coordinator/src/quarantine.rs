//! Shards that are put aside: one after another for every artifact, so that together they stay within what the job can
//! spare.

use std::collections::BTreeMap;

use data::artifact::{self, ArtifactId, Aside, Plan, QUARANTINED};
use data::job::{MaxRejected, Split};
use data::store::Store;
use data::tables::Footer;
use futures::FutureExt;
use proto::Committed;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::core::Event;
use crate::inbox::Input;
use crate::opening::{committed, patiently};
use crate::{Error, Result};

/// A shard that kills its workers.
#[derive(Clone, Debug)]
pub struct Condemned {
    /// The shard.
    pub shard: u32,
    /// What happened to it last.
    pub reason: String,
    /// What the job can spare.
    pub limit: MaxRejected,
}

/// What is put aside of an artifact so far. Read once; whoever keeps it is the only one who adds to it.
#[derive(Debug)]
pub struct PutAside {
    id: ArtifactId,
    split: Option<Split>,
    plan: Plan,
    /// Rows by shard.
    rows: BTreeMap<u32, u64>,
}

impl PutAside {
    /// Reads what was put aside before.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(store: &Store, id: &ArtifactId, split: Option<Split>) -> Result<Self> {
        let missing = || data::Error::NotFound { object: store.name(&id.control_prefix()) };
        let plan = artifact::read_plan(store, id).await?.ok_or_else(missing)?;
        let done = artifact::done_records(store, id).await?;
        let rows = done.iter().filter_map(|done| Some((done.shard, *done.rejected.get(QUARANTINED)?))).collect();
        Ok(Self { id: id.clone(), split, plan, rows })
    }

    /// Commits a shard without its rows, if the job can spare them: those of it and of the others that are put aside.
    /// Nothing comes back if a worker has computed the shard, so that the next attempt will complete it.
    ///
    /// # Errors
    /// [`Error::TooManyAside`]; those of a commit.
    pub async fn add(&self, store: &Store, condemned: &Condemned) -> Result<Option<Committed>> {
        let Condemned { shard, reason, limit } = condemned;
        let others: u64 = self.rows.iter().filter(|(other, _)| *other != shard).map(|(_, rows)| rows).sum();
        let here = self.plan.input_parts.get(*shard as usize).map_or(0, |part| part.rows);
        let all: u64 = self.plan.input_parts.iter().map(|part| part.rows).sum();
        if !limit.allows(others + here, all) {
            return Err(Error::TooManyAside { reason: reason.clone(), rows: others + here, all });
        }
        let attempt = format!("aside-{shard}");
        let digest = self.id.digest.to_string();
        let footer = Footer { job: String::new(), spec_digest: digest, model_digest: None, attempt };
        let done = match artifact::quarantine(store, &self.id, self.split, &self.plan, *shard, &footer).await? {
            Aside::Done(done) => done,
            Aside::Computed => return Ok(None),
        };
        Ok(Some(committed(done)))
    }

    /// Counts a shard that was added.
    pub fn count(&mut self, committed: &Committed) {
        if let Some(rows) = committed.rejected.get(QUARANTINED) {
            self.rows.insert(committed.shard, *rows);
        }
    }
}

/// The shards of every artifact that wait for being put aside, and the task that does it.
#[derive(Default)]
pub(crate) struct Quarantines(BTreeMap<ArtifactId, (mpsc::UnboundedSender<Condemned>, AbortHandle)>);

impl Quarantines {
    /// Puts a shard aside when those before it are; the loop hears of it.
    pub(crate) fn add(
        &mut self,
        store: &Store,
        inbox: &mpsc::Sender<Input>,
        (id, split): (&ArtifactId, Option<Split>),
        condemned: Condemned,
    ) {
        let begin = || {
            let (queue, waiting) = mpsc::unbounded_channel();
            let task = tokio::spawn(put_aside(store.clone(), inbox.clone(), id.clone(), split, waiting));
            (queue, task.abort_handle())
        };
        let (queue, _) = self.0.entry(id.clone()).or_insert_with(begin);
        // Where the last one was too much, the artifact is broken and this one is not wanted any more.
        let _ = queue.send(condemned);
    }

    /// Artifacts that nobody knows any more.
    pub(crate) fn forget(&mut self, is_known: impl Fn(&ArtifactId) -> bool) {
        self.0.retain(|id, (_, task)| {
            let known = is_known(id);
            if !known {
                task.abort();
            }
            known
        });
    }

    /// An artifact has ended, or is looked up anew: what was known of it counts no more.
    pub(crate) fn end(&mut self, id: &ArtifactId) {
        if let Some((_, task)) = self.0.remove(id) {
            task.abort();
        }
    }
}

/// Takes shard after shard, until the artifact has ended or cannot spare another one.
async fn put_aside(
    store: Store,
    inbox: mpsc::Sender<Input>,
    id: ArtifactId,
    split: Option<Split>,
    mut waiting: mpsc::UnboundedReceiver<Condemned>,
) {
    let mut known: Option<PutAside> = None;
    while let Some(condemned) = waiting.recv().await {
        warn!(artifact = %id, shard = condemned.shard, reason = condemned.reason, "shard put aside");
        let outcome = next(&store, &id, split, &mut known, &condemned).await;
        let broken = outcome.is_err();
        let event = match outcome {
            Ok(Some(committed)) => Event::Quarantined { artifact: id.clone(), committed },
            Ok(None) => Event::Spared { artifact: id.clone(), shard: condemned.shard },
            Err(e) => Event::Broken { artifact: id.clone(), class: e.class(), reason: e.to_string() },
        };
        let _ = inbox.send(Input::Event(event)).await;
        if broken {
            return;
        }
    }
}

async fn next(
    store: &Store,
    id: &ArtifactId,
    split: Option<Split>,
    known: &mut Option<PutAside>,
    condemned: &Condemned,
) -> Result<Option<Committed>> {
    let mut aside = match known.take() {
        Some(aside) => aside,
        None => patiently("see what is put aside", || PutAside::read(store, id, split).boxed()).await?,
    };
    let committed = patiently("put a shard aside", || aside.add(store, condemned).boxed()).await?;
    committed.iter().for_each(|committed| aside.count(committed));
    *known = Some(aside);
    Ok(committed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use data::artifact::{Digest, InputPart, Output, done_records, write_plan, write_spec};
    use data::tables::{HistoryRow, Table, encode_part};

    use super::*;
    use crate::fixtures::{Mortal, plan};

    /// A ranking of three shards with four users each.
    async fn opened(store: &Store) -> ArtifactId {
        let ranking = &plan(1, 10, &BTreeMap::new()).stages[3];
        let id = write_spec(store, &ranking.spec).await.unwrap();
        let mut input_parts = Vec::new();
        for shard in 0..3 {
            let user = |n: i64| HistoryRow { user_id: format!("{shard}-{n}"), items: vec!["a".into()], times: vec![n] };
            let users: Vec<HistoryRow> = (0..4).map(user).collect();
            let digest = Digest::of_bytes(b"spec").to_string();
            let footer = Footer { job: String::new(), spec_digest: digest, model_digest: None, attempt: String::new() };
            let (path, bytes) = (format!("tables/histories/{shard}"), encode_part(&users, &footer).unwrap());
            input_parts.push(InputPart { path: path.clone(), rows: 4, sha256: Digest::of_bytes(&bytes) });
            store.put(&path, bytes).await.unwrap();
        }
        let cut = Plan { shards: 3, input_parts, outputs: vec![Output::Table(Table::Rankings)] };
        write_plan(store, &id, &cut).await.unwrap();
        id
    }

    fn condemned(shard: u32, rows: u64) -> Condemned {
        Condemned { shard, reason: "it cost three workers".to_owned(), limit: MaxRejected::Rows(rows) }
    }

    async fn event(heard: &mut mpsc::Receiver<Input>) -> Event {
        match heard.recv().await {
            Some(Input::Event(event)) => event,
            _ => panic!("no event"),
        }
    }

    #[tokio::test]
    async fn shards_that_are_condemned_at_once_are_counted_together() {
        let root = Mortal::default();
        let store = root.store("s3://shop");
        let id = opened(&store).await;
        let (inbox, mut heard) = mpsc::channel(8);
        let mut quarantines = Quarantines::default();
        let ranking = (&id, Some(Split::Test));
        let before = root.listings();
        for shard in 0..3 {
            quarantines.add(&store, &inbox, ranking, condemned(shard, 9));
        }
        for expected in 0..2 {
            let Event::Quarantined { committed, .. } = event(&mut heard).await else { panic!("shard {expected}") };
            assert_eq!((committed.shard, committed.rows), (expected, 0));
        }
        let Event::Broken { reason, .. } = event(&mut heard).await else { panic!("twelve rows of nine") };
        assert!(reason.contains("12 of 12 rows would be missing"), "{reason}");
        assert_eq!(root.listings() - before, 1, "what is done is read once");

        // Submitted again with another limit: what was put aside is read anew, the shard itself counts once.
        quarantines.end(&id);
        for _ in 0..2 {
            quarantines.add(&store, &inbox, ranking, condemned(2, 12));
            let Event::Quarantined { committed, .. } = event(&mut heard).await else { panic!("twelve of twelve") };
            assert_eq!(committed.shard, 2);
        }
        assert_eq!(done_records(&store, &id).await.unwrap().len(), 3);
    }
}
