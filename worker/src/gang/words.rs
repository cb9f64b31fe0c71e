//! What members tell each other before they sum: the same words for all, so that all decide the same.

use std::cmp::Reverse;

use data::artifact::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// A member's word on a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word {
    /// Steps done: the same for all, or something is wrong.
    pub(crate) step: u64,
    /// What is wrong with this member's slices; empty if nothing is.
    pub(crate) trouble: String,
    /// How often it has seen this step fail.
    pub(crate) tries: u32,
    /// It leaves behind this step.
    pub(crate) leaves: bool,
    /// It was told that this generation is to end.
    pub(crate) regroups: bool,
    /// It is time that everybody has what only some have: a checkpoint is due, or this member remembers too much.
    pub(crate) settles: bool,
    /// Something is no number, and it was not this member who made it.
    pub(crate) spoilt: bool,
    /// Its figures, in the order of what they are of, as the bits of f64.
    pub(crate) figures: Vec<u64>,
    /// How long it has computed, in microseconds.
    pub(crate) micros: u64,
}

/// Where a member stands when it comes into a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Steps done, and the last of them that was validated.
    pub(crate) at: (u64, u64),
    /// The digest of parameters, moments, what is kept, and the course.
    pub(crate) state: Digest,
    /// The digest of what was loaded and does not change.
    pub(crate) loaded: Digest,
}

/// What the words of all come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// The ranks that are in trouble.
    pub(crate) troubled: Vec<usize>,
    /// How often this step has failed before, as far as anybody knows.
    pub(crate) tries: u32,
    /// Whether the generation ends behind this step.
    pub(crate) ends: bool,
    /// Whether everybody leaves.
    pub(crate) all_leave: bool,
    /// Whether everybody gets what only some have.
    pub(crate) settles: bool,
    /// The figures of all, by rank.
    pub(crate) figures: Vec<f64>,
    /// The longest time that a member has computed, and the mean, in seconds.
    pub(crate) seconds: (f64, f64),
}

impl Word {
    /// What the words of all come to, by rank.
    ///
    /// # Errors
    /// [`kernels::Error::Gang`] if members are at different steps.
    pub(crate) fn verdict(all: &[Self]) -> Result<Verdict> {
        if let Some(rank) = all.iter().position(|word| word.step != all[0].step) {
            let what = format!("rank {rank} is at step {}, rank 0 at {}", all[rank].step, all[0].step);
            return Err(kernels::Error::Gang(what).into());
        }
        let micros = all.iter().map(|word| word.micros);
        let longest = micros.clone().max().unwrap_or_default() as f64 / 1e6;
        let mean = micros.sum::<u64>() as f64 / 1e6 / all.len().max(1) as f64;
        Ok(Verdict {
            troubled: Self::troubled(all),
            tries: all.iter().map(|word| word.tries).max().unwrap_or_default(),
            ends: all.iter().any(|word| word.leaves || word.regroups),
            all_leave: all.iter().all(|word| word.leaves),
            settles: all.iter().any(|word| word.settles),
            figures: all.iter().flat_map(|word| &word.figures).map(|bits| f64::from_bits(*bits)).collect(),
            seconds: (longest, mean),
        })
    }

    /// The ranks that are in trouble: all, if nobody knows who has made what is no number.
    fn troubled(all: &[Self]) -> Vec<usize> {
        let troubled: Vec<usize> = (0..all.len()).filter(|rank| !all[*rank].trouble.is_empty()).collect();
        match troubled.is_empty() && all.iter().any(|word| word.spoilt) {
            true => (0..all.len()).collect(),
            false => troubled,
        }
    }
}

/// What standings come to for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Healing {
    /// All have the same state.
    Nothing,
    /// The state of a rank goes to those who are behind; this member is one of them or not.
    From {
        /// The rank that has it.
        rank: usize,
        /// Whether this member needs it.
        needed: bool,
    },
    /// This member is not of this gang, and why.
    PutOut(String),
}

impl Standing {
    /// What `rank` is to do where all stand like this. The highest step counts; of those who have it what most of them have, and of
    /// these the lowest rank.
    pub(crate) fn healing(all: &[Self], rank: usize) -> Healing {
        let top = all.iter().map(|standing| standing.at).max().unwrap_or_default();
        let like = |one: &Self| all.iter().filter(|other| *other == one).count();
        let holders = (0..all.len()).filter(|rank| all[*rank].at == top);
        let first = holders.max_by_key(|rank| (like(&all[*rank]), Reverse(*rank))).unwrap_or_default();
        let (own, right) = (&all[rank], &all[first]);
        if own.loaded != right.loaded {
            return Healing::PutOut(format!(
                "this worker has loaded something else than rank {first} of the gang: are base weights, tokenizer and \
                 build the same on both?"
            ));
        }
        if own.at == right.at && own.state != right.state {
            return Healing::PutOut(format!(
                "this worker's state at step {} differs from that of rank {first}: its memory or its device is not to \
                 be trusted",
                top.0
            ));
        }
        match all.iter().all(|standing| standing.at == top) {
            true => Healing::Nothing,
            false => Healing::From { rank: first, needed: own.at != top },
        }
    }
}

/// A word as bytes.
pub(crate) fn encode<W: Serialize>(word: &W) -> Vec<u8> {
    serde_json::to_vec(word).expect("words have no maps")
}

/// The words of all, by rank.
///
/// # Errors
/// [`Error::Kernels`] with [`kernels::Error::Gang`] for bytes that are none.
pub(crate) fn decode<W: DeserializeOwned>(all: &[Vec<u8>]) -> Result<Vec<W>> {
    let word = |(rank, bytes): (usize, &Vec<u8>)| {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::from(kernels::Error::Gang(format!("rank {rank} says what is no word: {e}"))))
    };
    all.iter().enumerate().map(word).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn standing(step: u64, state: &str, loaded: &str) -> Standing {
        let digest = |text: &str| Digest::of_bytes(text.as_bytes());
        Standing { at: (step, 0), state: digest(state), loaded: digest(loaded) }
    }

    fn healings(all: &[Standing]) -> Vec<Healing> {
        (0..all.len()).map(|rank| Standing::healing(all, rank)).collect()
    }

    #[test]
    fn figures_survive_to_the_bit_and_stay_in_order() {
        let figures = [0.1_f64, f64::MIN_POSITIVE, -0.0, 1e300];
        let words =
            figures.chunks(2).map(|two| Word { figures: two.iter().map(|f| f.to_bits()).collect(), ..Word::default() });
        let bytes: Vec<Vec<u8>> = words.map(|word| encode(&word)).collect();
        let verdict = Word::verdict(&decode::<Word>(&bytes).unwrap()).unwrap();
        let bits = |figures: &[f64]| figures.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&verdict.figures), bits(&figures));
        assert!(decode::<Word>(&[b"{".to_vec()]).is_err());
    }

    #[test]
    fn members_at_different_steps_find_out() {
        let words = [5, 5, 6].map(|step| Word { step, ..Word::default() });
        let said = Word::verdict(&words).unwrap_err().to_string();
        assert!(said.contains("rank 2 is at step 6, rank 0 at 5"), "{said}");
    }

    #[test]
    fn one_that_leaves_ends_the_generation_for_all() {
        let word = |leaves, regroups| Word { leaves, regroups, ..Word::default() };
        let ends = |words: &[Word]| Word::verdict(words).map(|v| (v.ends, v.all_leave)).unwrap();
        assert_eq!(ends(&[word(false, false), word(false, false)]), (false, false));
        assert_eq!(ends(&[word(false, false), word(true, false)]), (true, false));
        assert_eq!(ends(&[word(false, true), word(false, false)]), (true, false));
        assert_eq!(ends(&[word(true, false), word(true, true)]), (true, true));
    }

    #[test]
    fn what_nobody_has_made_is_everybodys_trouble() {
        let word = |trouble: &str, spoilt| Word { trouble: trouble.to_owned(), spoilt, ..Word::default() };
        let troubled = |words: &[Word]| Word::verdict(words).unwrap().troubled;
        assert_eq!(troubled(&[word("", false), word("", false)]), [0; 0]);
        assert_eq!(troubled(&[word("", true), word("it broke", true), word("", true)]), [1]);
        assert_eq!(troubled(&[word("", false), word("", true), word("", false)]), [0, 1, 2]);
    }

    #[test]
    fn the_highest_step_heals_the_others_from_its_lowest_rank() {
        let same = standing(7, "a", "b");
        assert_eq!(healings(&[same.clone(), same.clone()]), [Healing::Nothing, Healing::Nothing]);
        let all = [standing(6, "z", "b"), same.clone(), standing(0, "y", "b"), same];
        let from = |needed| Healing::From { rank: 1, needed };
        assert_eq!(healings(&all), [from(true), from(false), from(true), from(false)]);
    }

    #[test]
    fn of_two_at_one_step_the_one_that_has_validated_it_is_ahead() {
        let (before, behind) = (standing(7, "a", "b"), Standing { at: (7, 7), ..standing(7, "c", "b") });
        let from = |needed| Healing::From { rank: 1, needed };
        assert_eq!(healings(&[before, behind]), [from(true), from(false)]);
    }

    #[test]
    fn what_most_have_counts_and_not_what_the_first_has() {
        let (good, bad) = (standing(7, "a", "b"), standing(7, "x", "b"));
        let all = healings(&[bad, good.clone(), good]);
        assert!(matches!(all[0], Healing::PutOut(_)), "{all:?}");
        assert_eq!(all[1..], [Healing::Nothing, Healing::Nothing]);
    }

    #[test]
    fn whoever_differs_is_put_out_and_told_why() {
        let why = |all: &[Standing], rank: usize| match Standing::healing(all, rank) {
            Healing::PutOut(why) => why,
            other => panic!("{other:?}"),
        };
        let all = [standing(7, "a", "b"), standing(7, "x", "b"), standing(0, "a", "other")];
        assert!(why(&all, 1).contains("state at step 7 differs from that of rank 0"));
        assert!(why(&all, 2).contains("has loaded something else than rank 0"));
    }
}
