//! What an artifact is made from and how its work is cut: two control objects that never change.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ArtifactId, Digest, digest};
use crate::job::{Split, Stage};
use crate::store::{Created, Store};
use crate::tables::Table;
use crate::{Error, Result};

/// Everything that decides an artifact's content, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The stage.
    pub stage: Stage,
    /// The split, for stages that run once for each.
    pub split: Option<Split>,
    /// Version of the stage's meaning, raised when the same configuration gives another result.
    pub format_version: u32,
    /// The configuration keys that can change the result.
    pub config: Value,
    /// Digests of the inputs by their role.
    pub inputs: BTreeMap<String, Digest>,
}

impl Spec {
    /// The name of what this spec makes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&self.json())
    }

    /// Stage and digest.
    #[must_use]
    pub fn id(&self) -> ArtifactId {
        ArtifactId { stage: self.stage, digest: self.digest() }
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "stage": self.stage.as_str(),
            "split": self.split.map(Split::as_str),
            "format_version": self.format_version,
            "config": self.config,
            "inputs": self.inputs.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// A folder that an artifact fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The folder of a table.
    Table(Table),
    /// The folder of the stage's model.
    Model,
}

impl Output {
    /// Where it lies.
    #[must_use]
    pub fn folder(self, id: &ArtifactId) -> String {
        match self {
            Self::Table(table) => id.table_prefix(table),
            Self::Model => id.model_prefix(),
        }
    }
}

/// A part of another table that a shard reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPart {
    /// Path below the root of the store.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// What it must hold.
    pub sha256: Digest,
}

/// How the work of an artifact is cut. Written once, before the first shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How many shards there are, numbered from 0.
    pub shards: u32,
    /// The input of each shard, where a shard reads one part; empty where a stage reads whole tables.
    pub input_parts: Vec<InputPart>,
    /// The folders that get a `_SUCCESS`, whether or not a row lands in them.
    pub outputs: Vec<Output>,
}

/// Writes `spec.json`; one that is there must say the same.
///
/// # Errors
/// [`Error::Differs`] if it does not; the store's own failures.
pub async fn write_spec(store: &Store, spec: &Spec) -> Result<ArtifactId> {
    let id = spec.id();
    write_fixed(store, &id.control("spec.json"), &spec.json()).await?;
    Ok(id)
}

/// Reads `spec.json`, or nothing where the artifact was never begun.
///
/// # Errors
/// [`Error::Control`] if it cannot be understood; the store's own failures.
pub async fn read_spec(store: &Store, id: &ArtifactId) -> Result<Option<Spec>> {
    read_control(store, &id.control("spec.json")).await
}

/// Writes `plan.json`. The same inputs cut the same way give the same plan, so one that is there must say the same.
///
/// # Errors
/// [`Error::Differs`] if it does not; the store's own failures.
pub async fn write_plan(store: &Store, id: &ArtifactId, plan: &Plan) -> Result<()> {
    let json = serde_json::to_value(plan).expect("a plan has only string keys");
    write_fixed(store, &id.control("plan.json"), &json).await
}

/// Reads `plan.json`, or nothing where the work was never cut.
///
/// # Errors
/// [`Error::Control`] if it cannot be understood; the store's own failures.
pub async fn read_plan(store: &Store, id: &ArtifactId) -> Result<Option<Plan>> {
    read_control(store, &id.control("plan.json")).await
}

async fn write_fixed(store: &Store, path: &str, value: &Value) -> Result<()> {
    match store.create(path, Bytes::from(digest::canonical(value))).await? {
        Created::New => Ok(()),
        Created::Exists => Err(Error::Differs {
            object: store.name(path),
            reason: "it was written by another version of this program or changed by hand; remove the artifact's \
                     folder under `_control`, or use another `output.root`"
                .into(),
        }),
    }
}

/// Reads a control object.
pub(super) async fn read_control<T: DeserializeOwned>(store: &Store, path: &str) -> Result<Option<T>> {
    let Some(bytes) = store.try_get(path).await? else { return Ok(None) };
    parse_control(&store.name(path), &bytes).map(Some)
}

pub(super) fn parse_control<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Control { object: name.to_owned(), reason: e.to_string() })
}
