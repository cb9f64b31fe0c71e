//! The stages of a job and the splits of its users.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One step of a job, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Interactions to histories and items.
    Prepare,
    /// Items to pictures: where each lies and what it holds.
    Pictures,
    /// Pictures to captions.
    Caption,
    /// Histories to a trained retriever.
    TrainRetriever,
    /// Histories to candidates.
    Retrieve,
    /// Histories, candidates and captions to a tuned ranker.
    TrainRanker,
    /// Candidates to rankings.
    Rank,
    /// Rankings to metrics.
    Evaluate,
}

impl Stage {
    /// Every stage in the order in which they run.
    pub const ALL: [Self; 8] = [
        Self::Prepare,
        Self::Pictures,
        Self::Caption,
        Self::TrainRetriever,
        Self::Retrieve,
        Self::TrainRanker,
        Self::Rank,
        Self::Evaluate,
    ];

    /// The stages that a job asks for by name. `pictures` comes along with `caption`, where pictures are described.
    pub fn named() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|stage| *stage != Self::Pictures)
    }

    /// The name in files, paths and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Pictures => "pictures",
            Self::Caption => "caption",
            Self::TrainRetriever => "train_retriever",
            Self::Retrieve => "retrieve",
            Self::TrainRanker => "train_ranker",
            Self::Rank => "rank",
            Self::Evaluate => "evaluate",
        }
    }
}

/// Which interactions of a user are history and which one is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Prefixes of the training sequence: all but the last two items.
    Train,
    /// The item before the last is held out.
    Validation,
    /// The last item is held out.
    Test,
    /// Nothing is held out: the recommendations that a shop would show.
    All,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Test, Self::All];

    /// The name in files, paths and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::All => "all",
        }
    }

    /// Whether one item of every user is held out.
    #[must_use]
    pub fn has_target(self) -> bool {
        matches!(self, Self::Validation | Self::Test)
    }
}

/// A name that is not in the list of allowed ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name `{0}`")]
pub struct UnknownName(pub String);

impl FromStr for Stage {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| UnknownName(s.to_owned()))
    }
}

impl FromStr for Split {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| UnknownName(s.to_owned()))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
