//! What becomes of the users of a shard: rows copied from before, or computed, and why.

use std::borrow::Cow;
use std::collections::BTreeMap;

use data::artifact::Stats;
use serde_json::json;

use crate::Result;

/// Why a user's rows are computed.
pub(crate) type Reason = Cow<'static, str>;

/// What becomes of one user.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate<R> {
    /// The rows of before.
    Copied(R),
    /// New ones, for a reason.
    Rescored(Reason),
}

/// What a task may copy.
pub(crate) enum Since<T> {
    /// The job names no earlier one.
    Never,
    /// It does, but something has changed for everybody.
    Everybody(Reason),
    /// The rows of an earlier job, where nothing has changed for a user.
    Rows(T),
}

impl<T> Since<T> {
    /// What becomes of the users of a shard; `compare` finds it out where users may differ.
    pub(crate) fn fates<R>(
        &mut self,
        users: usize,
        compare: impl FnOnce(&mut T) -> Result<Vec<Fate<R>>>,
    ) -> Result<Fates<R>> {
        let everybody = |reason: &Reason| (0..users).map(|_| Fate::Rescored(reason.clone())).collect();
        Ok(match self {
            Self::Never => Fates { fates: everybody(&Reason::default()), told: false },
            Self::Everybody(reason) => Fates { fates: everybody(reason), told: true },
            Self::Rows(rows) => Fates { fates: compare(rows)?, told: true },
        })
    }
}

/// What becomes of every user of a shard, in their order.
pub(crate) struct Fates<R> {
    fates: Vec<Fate<R>>,
    /// Whether anybody asked for copies.
    told: bool,
}

impl<R> Fates<R> {
    /// Those of the users that are computed.
    pub(crate) fn rescored<U>(&self, users: impl Iterator<Item = U>) -> Vec<U> {
        let computed = |(user, fate): (U, &Fate<R>)| matches!(fate, Fate::Rescored(_)).then_some(user);
        users.zip(&self.fates).filter_map(computed).collect()
    }

    /// How many are copied.
    pub(crate) fn copied(&self) -> usize {
        self.fates.iter().filter(|fate| matches!(fate, Fate::Copied(_))).count()
    }

    /// Figures of the done record.
    pub(crate) fn describe(&self, stats: &mut Stats) {
        if !self.told {
            return;
        }
        let mut why: BTreeMap<&str, u64> = BTreeMap::new();
        for fate in &self.fates {
            if let Fate::Rescored(reason) = fate {
                *why.entry(reason).or_default() += 1;
            }
        }
        stats.notes.insert("copied".to_owned(), json!(self.copied()));
        stats.notes.insert("rescored".to_owned(), json!(self.fates.len() - self.copied()));
        stats.notes.insert("why".to_owned(), json!(why));
    }

    /// The note of the stage, while it runs.
    pub(crate) fn note(&self) -> String {
        let copied = self.copied();
        if self.told { format!("{copied} copied, {} rescored", self.fates.len() - copied) } else { String::new() }
    }

    /// The rows of all users, in their order.
    pub(crate) fn merge(self, computed: Vec<R>) -> Vec<R> {
        let mut computed = computed.into_iter();
        let row = |fate| match fate {
            Fate::Copied(row) => Some(row),
            Fate::Rescored(_) => computed.next(),
        };
        self.fates.into_iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_come_back_in_the_order_of_users() {
        let fates = || vec![Fate::Rescored("new user".into()), Fate::Copied(20), Fate::Rescored("new user".into())];
        let fates = Since::Rows(()).fates(3, |()| Ok(fates())).unwrap();
        assert_eq!(fates.rescored(["a", "b", "c"].into_iter()), ["a", "c"]);
        let mut stats = Stats::default();
        fates.describe(&mut stats);
        let expected = json!({"copied": 1, "rescored": 2, "why": {"new user": 2}});
        assert_eq!(json!(stats.notes), expected);
        assert_eq!(fates.note(), "1 copied, 2 rescored");
        assert_eq!(fates.merge(vec![1, 3]), [1, 20, 3]);
    }

    #[test]
    fn without_an_earlier_job_nothing_is_said() {
        let fates = Since::<()>::Never.fates::<u32>(2, |()| panic!("there is nothing to compare with")).unwrap();
        let mut stats = Stats::default();
        fates.describe(&mut stats);
        assert_eq!((stats.notes.len(), fates.note(), fates.merge(vec![1, 2])), (0, String::new(), vec![1, 2]));
    }
}
