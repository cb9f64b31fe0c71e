//! An artifact of small shards, and attempts at them.

use std::collections::BTreeMap;

use bytes::Bytes;
use data::artifact::{
    ArtifactId, Attempt, Commit, Digest, Output, PartPayload, Plan, Spec, Stats, commit_shard, write_plan, write_spec,
};
use data::job::{Split, Stage};
use data::store::Store;
use data::tables::{Footer, Table, TargetRankRow, encode_part, part_name};
use serde_json::json;

/// An artifact that has begun.
#[derive(Clone)]
pub(crate) struct Begun {
    pub(crate) id: ArtifactId,
    plan: Plan,
}

impl Begun {
    /// Writes spec and plan of an artifact with so many shards.
    pub(crate) async fn with(store: &Store, shards: u32) -> Self {
        let spec = Spec {
            stage: Stage::Retrieve,
            split: Some(Split::Test),
            format_version: 1,
            config: json!({"candidates": 20}),
            inputs: BTreeMap::from([("histories".to_owned(), Digest::of_bytes(b"histories"))]),
        };
        let plan = Plan { shards, input_parts: vec![], outputs: vec![Output::Table(Table::TargetRanks)] };
        let id = write_spec(store, &spec).await.unwrap();
        write_plan(store, &id, &plan).await.unwrap();
        Self { id, plan }
    }

    /// Commits an attempt at a shard of one user; attempts disagree in nothing but their name.
    pub(crate) async fn commit(&self, store: &Store, shard: u32, name: &str) -> data::Result<Commit> {
        let attempt = Attempt {
            shard,
            id: name.to_owned(),
            parts: vec![self.part(shard, name)],
            stats: Stats { rows: 1, ..Stats::default() },
            ..Attempt::default()
        };
        commit_shard(store, &self.id, &self.plan, attempt).await
    }

    fn part(&self, shard: u32, name: &str) -> PartPayload {
        let row = TargetRankRow { user_id: format!("u{shard:05}"), split: Split::Test, rank: 1 };
        let footer = Footer { spec_digest: self.id.digest.to_string(), attempt: name.into(), ..Footer::default() };
        let bytes: Bytes = encode_part(&[row], &footer).unwrap();
        PartPayload { table: Table::TargetRanks, name: part_name(shard, self.plan.shards), rows: 1, bytes }
    }

    /// Where the parts lie.
    pub(crate) fn folder(&self) -> String {
        self.id.table_prefix(Table::TargetRanks)
    }
}
