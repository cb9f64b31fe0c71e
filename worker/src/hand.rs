//! A lease in hand and what was said of it, without I/O: what a worker repeats to a coordinator that may have missed it.

use proto::{Claim, Committed, FromWorker, GenerationId, Grant, LeaseId, Progress, Ready};

/// A lease and what was said of it so far.
#[derive(Clone, Debug)]
pub struct Hand {
    lease: LeaseId,
    stage: String,
    digest: String,
    /// What is not committed yet, in the order of work.
    shards: Vec<u32>,
    committed: Vec<Committed>,
    progress: Progress,
    /// The generation that it trains in, or what it has said since: it waits for one.
    generation: Option<GenerationId>,
    ready: Option<Ready>,
    /// The last word, once there is one.
    end: Option<FromWorker>,
}

impl Hand {
    /// A lease of which nothing was said.
    #[must_use]
    pub fn new(grant: &Grant) -> Self {
        let (stage, digest, shards) = (grant.stage.clone(), grant.digest.clone(), grant.shards.clone());
        let (committed, progress) = (Vec::new(), Progress::default());
        let (generation, ready, end) = (None, None, None);
        Self { lease: grant.lease, stage, digest, shards, committed, progress, generation, ready, end }
    }

    /// Its id.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// What was said last of how far it is.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether the last word was said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// It trains in a generation from now on.
    pub fn enter(&mut self, generation: GenerationId) {
        (self.generation, self.ready) = (Some(generation), None);
    }

    /// Takes down a word of the work before it goes out. Says whether it is about this lease; others are of work that is
    /// long over.
    pub fn remember(&mut self, word: &FromWorker) -> bool {
        match word {
            FromWorker::Committed { lease, committed } if *lease == self.lease => {
                self.shards.retain(|shard| *shard != committed.shard);
                self.committed.push(committed.clone());
            }
            FromWorker::Progress { lease, progress } if *lease == self.lease => self.progress = progress.clone(),
            FromWorker::Ready(ready) if ready.lease == self.lease => {
                (self.generation, self.ready) = (None, Some(ready.clone()));
            }
            FromWorker::Ended { lease } | FromWorker::Failed { lease, .. } if *lease == self.lease => {
                self.end = Some(word.clone());
            }
            _ => return false,
        }
        true
    }

    /// What is in hand, for a coordinator that may not know it.
    #[must_use]
    pub fn claim(&self) -> Claim {
        let (stage, digest, shards) = (self.stage.clone(), self.digest.clone(), self.shards.clone());
        Claim { lease: self.lease, stage, digest, shards, generation: self.generation }
    }

    /// What a coordinator may have missed, in order.
    pub fn repeat(&self) -> impl Iterator<Item = FromWorker> {
        let lease = self.lease;
        let committed = self.committed.iter().cloned();
        let committed = committed.map(move |committed| FromWorker::Committed { lease, committed });
        committed.chain(self.ready.clone().map(FromWorker::Ready)).chain(self.end.clone())
    }
}

#[cfg(test)]
mod tests {
    use proto::JobId;

    use super::*;

    fn hand() -> Hand {
        let (stage, digest) = ("rank".to_owned(), "d".to_owned());
        let (job, shards) = (JobId("j".to_owned()), vec![4, 7]);
        Hand::new(&Grant { lease: LeaseId(1), job, job_toml: String::new(), stage, split: None, digest, shards, of: 9 })
    }

    fn committed(lease: u64, shard: u32) -> FromWorker {
        FromWorker::Committed { lease: LeaseId(lease), committed: Committed { shard, ..Committed::default() } }
    }

    #[test]
    fn what_is_committed_is_repeated_and_not_claimed() {
        let mut hand = hand();
        assert_eq!(hand.claim().shards, [4, 7]);
        assert!(hand.remember(&committed(1, 4)));
        assert_eq!(hand.claim().shards, [7]);
        let end = FromWorker::Ended { lease: LeaseId(1) };
        assert!(hand.remember(&committed(1, 7)) && !hand.is_over() && hand.remember(&end) && hand.is_over());
        assert_eq!(hand.repeat().collect::<Vec<_>>(), [committed(1, 4), committed(1, 7), end]);
    }

    #[test]
    fn a_member_says_again_that_it_waits_and_claims_what_it_is_in() {
        let mut hand = hand();
        let (address, certificate, about) = ("host:1".to_owned(), vec![1], String::new());
        let ready = FromWorker::Ready(Ready { lease: LeaseId(1), address, certificate, step: 3, about, broken: None });
        assert!(hand.remember(&ready));
        assert_eq!((hand.claim().generation, hand.repeat().collect::<Vec<_>>()), (None, vec![ready.clone()]));
        hand.enter(GenerationId(5));
        assert_eq!((hand.claim().generation, hand.repeat().count()), (Some(GenerationId(5)), 0));
        hand.remember(&ready);
        assert_eq!((hand.claim().generation, hand.repeat().count()), (None, 1));
    }

    #[test]
    fn words_of_another_lease_are_not_taken_down() {
        let mut hand = hand();
        assert!(!hand.remember(&committed(2, 4)) && !hand.remember(&FromWorker::Heartbeat));
        assert_eq!((hand.claim().shards.len(), hand.repeat().count()), (2, 0));
    }
}
