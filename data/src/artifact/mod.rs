//! What a stage leaves behind, named by what went into it.
//!
//! A stage is a pure function, so its output lives under a digest of its configuration and of its inputs' digests: the
//! same work is never done twice, and a change re-runs only what depends on it. A shard counts as done once its
//! **done record** exists; parts are created before it and `_SUCCESS` after all of them, each by the one primitive of
//! [`crate::store`]. So a shard may run twice and counts once, and "what is done" is a listing.
//!
//! ```text
//! tables/<table>/<digest>/                      part-00000-of-00128.parquet …, an empty _SUCCESS last
//! models/<stage>/<digest>/                      safetensors and config files, _SUCCESS last
//! _control/v1/artifacts/<stage>/<digest>/       spec.json, plan.json, done/00042.json
//! ```

mod commit;
mod digest;
mod done;
mod finish;
mod inputs;
mod quarantine;
mod spec;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use commit::{
    Attempt, Commit, FilePayload, MAX_PART_BYTES, PartPayload, Stats, commit_shard, write_file, write_part,
};
pub use digest::{Digest, NotADigest};
pub use done::{Done, FileRecord, PartRecord, done_record, done_records, done_shards};
pub use finish::{finish, is_complete};
pub use inputs::InputDigests;
pub use quarantine::{Aside, QUARANTINED, quarantine};
pub use spec::{InputPart, Output, Plan, Spec, read_plan, read_spec, write_plan, write_spec};

use crate::job::Stage;
use crate::tables::Table;

/// Name of the empty object that says that a folder is complete.
pub const SUCCESS: &str = "_SUCCESS";

/// The role of the earlier artifact whose rows are copied where nothing has changed.
pub const SINCE: &str = "since";

/// One stage's output for one configuration and one set of inputs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArtifactId {
    /// The stage that makes it.
    pub stage: Stage,
    /// Digest of its [`Spec`].
    pub digest: Digest,
}

impl ArtifactId {
    /// Folder of the control objects.
    #[must_use]
    pub fn control_prefix(&self) -> String {
        format!("_control/v1/artifacts/{}/{}", self.stage, self.digest)
    }

    /// Folder of a table that this artifact holds.
    #[must_use]
    pub fn table_prefix(&self, table: Table) -> String {
        table_prefix(table, &self.digest)
    }

    /// Folder of the model that this artifact holds.
    #[must_use]
    pub fn model_prefix(&self) -> String {
        model_prefix(self.stage, &self.digest)
    }

    pub(crate) fn control(&self, name: &str) -> String {
        format!("{}/{name}", self.control_prefix())
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stage, self.digest.short())
    }
}

/// Folder of a table.
#[must_use]
pub fn table_prefix(table: Table, digest: &Digest) -> String {
    format!("tables/{}/{digest}", table.name())
}

/// Folder of a model.
#[must_use]
pub fn model_prefix(stage: Stage, digest: &Digest) -> String {
    format!("models/{stage}/{digest}")
}

/// The name under which a stage's output is an input of another: `prepare`, `retrieve.test`.
#[must_use]
pub fn role(stage: Stage, split: Option<crate::job::Split>) -> String {
    split.map_or_else(|| stage.to_string(), |split| format!("{stage}.{split}"))
}
