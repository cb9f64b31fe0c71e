//! What lies under a root, by artifact.

use std::collections::BTreeMap;
use std::time::SystemTime;

use data::artifact::{ArtifactId, Digest};
use data::job::Stage;
use data::store::Store;
use data::tables::Table;

use crate::Result;

/// An object of a listing.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) path: String,
    /// Its name below the folder of the table, the model or the control objects.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Everything of one artifact.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: ArtifactId,
    /// Its objects under `_control`.
    pub(super) control: Vec<Object>,
    /// Those of its tables, by table.
    pub(super) tables: BTreeMap<Table, Vec<Object>>,
    /// Those of its model.
    pub(super) model: Vec<Object>,
}

impl Found {
    fn new(stage: Stage, digest: Digest) -> Self {
        let id = ArtifactId { stage, digest };
        Self { id, control: Vec::new(), tables: BTreeMap::new(), model: Vec::new() }
    }

    /// Every object.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.control.iter().chain(self.tables.values().flatten()).chain(&self.model)
    }

    /// Objects and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.objects().fold((0, 0), |(objects, bytes), object| (objects + 1, bytes + object.size))
    }

    /// How many shards have a done record.
    pub(super) fn done(&self) -> usize {
        self.control.iter().filter(|object| object.name.starts_with("done/")).count()
    }
}

/// Lists every artifact. Tables and stages that this build does not know are passed over: they are a later one's.
pub(super) async fn census(store: &Store) -> Result<BTreeMap<Digest, Found>> {
    let mut all: BTreeMap<Digest, Found> = BTreeMap::new();
    for (kind, digest, object) in listed(store, "_control/v1/artifacts").await? {
        let Ok(stage) = kind.parse::<Stage>() else { continue };
        all.entry(digest.clone()).or_insert_with(|| Found::new(stage, digest)).control.push(object);
    }
    for (kind, digest, object) in listed(store, "models").await? {
        let Ok(stage) = kind.parse::<Stage>() else { continue };
        all.entry(digest.clone()).or_insert_with(|| Found::new(stage, digest)).model.push(object);
    }
    for (kind, digest, object) in listed(store, "tables").await? {
        let Some(table) = Table::ALL.into_iter().find(|table| table.name() == kind) else { continue };
        let found = all.entry(digest.clone()).or_insert_with(|| Found::new(maker(table), digest));
        found.tables.entry(table).or_default().push(object);
    }
    Ok(all)
}

/// Objects at `<top>/<kind>/<digest>/<name>`.
async fn listed(store: &Store, top: &str) -> Result<Vec<(String, Digest, Object)>> {
    let split = |(path, stat): (String, data::store::Stat)| {
        let mut parts = path.strip_prefix(top)?.trim_start_matches('/').splitn(3, '/');
        let (kind, digest, name) = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned());
        let digest = Digest::try_from(digest).ok()?;
        Some((kind, digest, Object { path, name, size: stat.size, modified: stat.modified }))
    };
    Ok(store.list_stamped(top).await?.into_iter().filter_map(split).collect())
}

/// The stage that makes a table, for one whose control objects are gone.
fn maker(table: Table) -> Stage {
    match table {
        Table::Items | Table::Histories | Table::Rejected => Stage::Prepare,
        Table::Pictures => Stage::Pictures,
        Table::Captions => Stage::Caption,
        Table::Candidates | Table::TargetRanks => Stage::Retrieve,
        Table::Rankings => Stage::Rank,
        Table::Metrics => Stage::Evaluate,
    }
}
