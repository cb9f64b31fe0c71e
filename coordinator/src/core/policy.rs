//! Limits that turn silence, failure and time into decisions.

use std::time::Duration;

/// How patient a coordinator is, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A worker that is silent for so long is lost.
    pub dead_after: Duration,
    /// A worker that is silent for so long gets nothing more before it speaks again.
    pub suspect_after: Duration,
    /// A shard that fails so often fails its stage.
    pub max_failures: u32,
    /// A shard of users that costs so many workers is put aside.
    pub quarantine_after: u32,
    /// Any other shard that costs so many workers fails its stage.
    pub max_losses: u32,
    /// A lease holds as many shards as take about so long.
    pub lease_target: Duration,
    /// The most shards of one lease.
    pub max_bundle: usize,
    /// A shard whose lease has committed nothing for so long is given to an idle worker too, when nothing else is left.
    pub duplicate_after: Duration,
    /// After a coordinator took over, workers of the one before have so long to say what they hold.
    pub claim_grace: Duration,
    /// Once a member of a gang is ready to train, the others have so long to become it too.
    pub last_call: Duration,
    /// A training that loses members so often at one step fails.
    pub max_step_losses: u32,
    /// A worker that failed in a training, or could not be reached there, is kept out of it for so long, and twice as long
    /// with each failure.
    pub bar_for: Duration,
    /// A worker that failed so often in a training is kept out for good.
    pub max_worker_failures: u32,
    /// A training whose workers failed so often ends.
    pub max_training_failures: u32,
    /// Where a shard waits and nobody is idle, a gang hands back a member each time that so much has passed.
    pub rebalance_every: Duration,
}

impl Policy {
    /// What is usual.
    pub const USUAL: Self = Self {
        dead_after: Duration::from_secs(10),
        suspect_after: Duration::from_secs(3),
        max_failures: 3,
        quarantine_after: 3,
        max_losses: 5,
        lease_target: Duration::from_secs(60),
        max_bundle: 256,
        duplicate_after: proto::DUPLICATE_AFTER,
        claim_grace: Duration::from_secs(5),
        last_call: Duration::from_secs(3),
        max_step_losses: 3,
        bar_for: Duration::from_secs(60),
        max_worker_failures: 5,
        max_training_failures: 50,
        rebalance_every: Duration::from_secs(5),
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self::USUAL
    }
}
