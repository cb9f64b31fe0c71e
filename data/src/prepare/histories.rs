//! The histories of all users, shard by shard, from one sorted stream of interactions.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tempfile::TempDir;

use crate::tables::HistoryRow;
use crate::{Error, Result};

/// Histories in byte order of the user ids; never more than a shard of them in memory.
pub struct Histories {
    rows: SendableRecordBatchStream,
    failure: Box<dyn Fn(DataFusionError) -> Error + Send>,
    shard_users: usize,
    waiting: Vec<HistoryRow>,
    /// Removed, with everything spooled in it, when the last history was read.
    _spool: TempDir,
}

impl std::fmt::Debug for Histories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histories").field("shard_users", &self.shard_users).finish_non_exhaustive()
    }
}

impl Histories {
    /// Groups a stream of (user, item, time) in the order of users and, within a user, of time.
    pub(super) fn new(
        rows: SendableRecordBatchStream,
        failure: Box<dyn Fn(DataFusionError) -> Error + Send>,
        shard_users: u32,
        spool: TempDir,
    ) -> Self {
        let shard_users = usize::try_from(shard_users.max(1)).unwrap_or(usize::MAX);
        Self { rows, failure, shard_users, waiting: Vec::new(), _spool: spool }
    }

    /// The next shard: `dataset.shard_users` users, fewer only in the last one, `None` behind it.
    ///
    /// # Errors
    /// [`Error::Memory`] where sorting needs more than `limits.memory`, [`Error::Spool`] where the disk fails.
    pub async fn next_shard(&mut self) -> Result<Option<Vec<HistoryRow>>> {
        // One user more than a shard: only then the last user of the shard is complete.
        while self.waiting.len() <= self.shard_users {
            match self.rows.next().await {
                Some(batch) => self.take(&batch.map_err(&self.failure)?),
                None => break,
            }
        }
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let rest = self.waiting.split_off(self.shard_users.min(self.waiting.len()));
        Ok(Some(std::mem::replace(&mut self.waiting, rest)))
    }

    fn take(&mut self, batch: &RecordBatch) {
        let (users, items) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        let times = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let (item, time) = (items.value(row).to_owned(), times.value(row));
            match self.waiting.last_mut() {
                Some(last) if last.user_id == users.value(row) => {
                    last.items.push(item);
                    last.times.push(time);
                }
                _ => self.waiting.push(HistoryRow {
                    user_id: users.value(row).to_owned(),
                    items: vec![item],
                    times: vec![time],
                }),
            }
        }
    }
}
