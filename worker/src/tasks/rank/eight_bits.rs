//! Whether a ranker orders candidates in eight bits as it does without, measured on people of the population that is scored.
//!
//! One decision holds for an artifact: the first worker measures and writes it down, the others do as it says, and a job that copies
//! rows of an earlier one (`since`) does as that did. So it makes no difference which worker scores whom.

use data::artifact::ArtifactId;
use data::job::Split;
use data::tables::{CandidateRow, RankingRow, Reader};
use kernels::Device;
use model::ranker::Ranker;
use serde::{Deserialize, Serialize};

use super::ordering::Ordering;
use super::{USERS, load, questions};
use crate::asking::{Asking, Question};
use crate::context::Context;
use crate::population::{Population, User, read_shard};
use crate::{Error, Result};

/// People who are asked about both ways: the first of the population who have candidates.
const SAMPLE: usize = 256;

/// How alike two orders of the same people's candidates are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Agreement {
    /// Whether it is enough for the job.
    pub(super) used: bool,
    /// Why nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reason: Option<String>,
    /// The people who were asked about.
    pub(super) users: usize,
    /// The share of them whose first candidate is the same.
    pub(super) same_first: f64,
    /// Kendall's tau of the two orders, the mean over them.
    pub(super) kendall: f64,
}

/// What a comparison reads.
pub(super) struct Compared<'a> {
    pub(super) asking: Asking<'a>,
    pub(super) ordering: &'a Ordering,
    pub(super) candidates: &'a Reader<CandidateRow>,
    pub(super) split: Split,
}

/// People and what is asked about them.
struct Sample {
    rows: Vec<CandidateRow>,
    questions: Vec<Question>,
}

/// Cuts a ranker to eight bits if that was decided, or leaves the order of enough people's candidates as it is. One that was cut in
/// vain is loaded anew.
pub(super) fn cut(
    cx: &mut Context,
    device: &Device,
    compared: &Compared<'_>,
    earlier: Option<&ArtifactId>,
    mut ranker: Ranker,
) -> Result<(Ranker, Agreement)> {
    if let Some(decided) = decided(cx, earlier)? {
        if decided.used {
            ranker.cut_to_fp8().map_err(no_room)?;
        }
        return Ok((ranker, decided));
    }
    let sample = compared.sample(cx)?;
    let wanted = compared.answers(cx, &ranker, &sample)?;
    let agreement = match compared.agreement(cx, &mut ranker, &sample, &wanted) {
        // Weights in four bits grow where they are cut, and a ranker that had room may have none then; a library may know no products
        // of eight bits for a card that does.
        Err(Error::Kernels(error @ (kernels::Error::Memory { .. } | kernels::Error::Device(_)))) => {
            Agreement { used: false, reason: Some(error.to_string()), users: 0, same_first: 0.0, kendall: 0.0 }
        }
        agreement => agreement?,
    };
    let agreement = first_decided(cx, agreement)?;
    tell(&agreement, cx.job.ranker.fp8_agreement);
    if agreement.used {
        ranker.cut_to_fp8().map_err(no_room)?;
        return Ok((ranker, agreement));
    }
    // Two rankers may be more than the device has room for.
    drop(ranker);
    Ok((load(cx, device)?, agreement))
}

/// Others have room for what was decided: this worker has failed, and not the job.
fn no_room(error: model::Error) -> Error {
    match error {
        model::Error::Kernel(e @ kernels::Error::Memory { .. }) => Error::NoRoom(format!(
            "this device has no room for the ranker in eight bits, in which other workers score the same users (ranker.fp8): {e}"
        )),
        error => error.into(),
    }
}

fn tell(agreement: &Agreement, least: f64) {
    let Agreement { used, reason, users, same_first, kendall } = agreement;
    if *used {
        tracing::info!(users, same_first, kendall, "scoring in eight bits");
    } else if let Some(reason) = reason {
        tracing::warn!(reason, "ranker.fp8: scoring without eight bits");
    } else {
        tracing::warn!(
            users,
            same_first,
            kendall,
            "ranker.fp8: eight bits change the first candidate of more people than ranker.fp8_agreement = {least} allows: scoring without"
        );
    }
}

fn path(artifact: &ArtifactId) -> String {
    format!("{}/fp8.json", artifact.control_prefix())
}

/// What was decided for this artifact, or for the one whose rows may be copied.
fn decided(cx: &Context, earlier: Option<&ArtifactId>) -> Result<Option<Agreement>> {
    let own = read(cx, &cx.artifact)?;
    if own.is_some() {
        return Ok(own);
    }
    // Where an earlier device could not be asked, this one is.
    let before = earlier.map(|artifact| read(cx, artifact)).transpose()?.flatten().filter(|b| b.reason.is_none());
    before.map(|before| first_decided(cx, before)).transpose()
}

fn read(cx: &Context, artifact: &ArtifactId) -> Result<Option<Agreement>> {
    let path = path(artifact);
    if !cx.wait(cx.store.exists(&path))? {
        return Ok(None);
    }
    parsed(&path, &cx.wait(cx.store.get(&path))?).map(Some)
}

/// Writes a decision down; where somebody was faster, theirs holds.
fn first_decided(cx: &Context, agreement: Agreement) -> Result<Agreement> {
    let path = path(&cx.artifact);
    let text = serde_json::to_vec_pretty(&agreement).map_err(|e| Error::Misfit { what: e.to_string() })?;
    match cx.wait(cx.store.create_or_read(&path, text.into()))? {
        None => Ok(agreement),
        Some(theirs) => parsed(&path, &theirs),
    }
}

fn parsed(path: &str, text: &[u8]) -> Result<Agreement> {
    serde_json::from_slice(text).map_err(|e| Error::Misfit { what: format!("{path} cannot be read: {e}") })
}

impl Compared<'_> {
    /// Asks again in eight bits, and leaves the ranker so.
    fn agreement(
        &self,
        cx: &mut Context,
        ranker: &mut Ranker,
        sample: &Sample,
        wanted: &[RankingRow],
    ) -> Result<Agreement> {
        ranker.cut_to_fp8()?;
        let found = self.answers(cx, ranker, sample)?;
        let mut agreement = Agreement::of(&found, wanted);
        let finite = found.iter().all(|row| row.scores.iter().all(|score| score.is_finite()));
        agreement.used = agreement.same_first >= cx.job.ranker.fp8_agreement && finite;
        if !finite {
            agreement.reason = Some("scores in eight bits are not finite".to_owned());
        }
        Ok(agreement)
    }

    /// What is asked about the first people who have candidates.
    fn sample(&self, cx: &Context) -> Result<Sample> {
        let population: &Population = self.asking.population;
        let mut sample = Sample { rows: Vec::new(), questions: Vec::new() };
        for shard in 0..population.shards() {
            cx.check()?;
            let users = population.shard(cx, shard)?;
            let rows = read_shard(cx, self.candidates, shard, &users, |r: &CandidateRow| &r.user_id)?;
            let left = SAMPLE - sample.rows.len();
            let asked: Vec<(&User, &CandidateRow)> =
                users.iter().zip(&rows).filter(|(_, row)| row.items.len() > 1).take(left).collect();
            sample.questions.extend(questions(population, &asked, self.split)?);
            sample.rows.extend(asked.into_iter().map(|(_, row)| row.clone()));
            if sample.rows.len() == SAMPLE {
                break;
            }
        }
        Ok(sample)
    }

    /// What would be shown to them.
    fn answers(&self, cx: &mut Context, ranker: &Ranker, sample: &Sample) -> Result<Vec<RankingRow>> {
        let shared = self.asking.prompts.share(ranker)?;
        let mut answers = Vec::with_capacity(sample.rows.len());
        for (questions, rows) in sample.questions.chunks(USERS).zip(sample.rows.chunks(USERS)) {
            cx.check()?;
            let begun = self.asking.begin(questions)?;
            let logits = self.asking.logits(ranker, shared.as_ref(), questions, &begun)?;
            answers.extend(rows.iter().zip(logits).map(|(row, logits)| self.ordering.row(row, &logits)));
            cx.progress(0, 0, "users", || "comparing eight bits with what the ranker says without".to_owned());
        }
        Ok(answers)
    }
}

impl Agreement {
    /// Of orders of the same people's candidates.
    fn of(found: &[RankingRow], wanted: &[RankingRow]) -> Self {
        let mean = |of: fn(&[u32], &[u32]) -> f64| match found.len() {
            0 => 1.0,
            users => {
                let pairs = found.iter().zip(wanted);
                pairs.map(|(found, wanted)| of(&found.retriever_ranks, &wanted.retriever_ranks)).sum::<f64>()
                    / users as f64
            }
        };
        let same = |found: &[u32], wanted: &[u32]| f64::from(u8::from(found[0] == wanted[0]));
        Self { used: false, reason: None, users: found.len(), same_first: mean(same), kendall: mean(kendall) }
    }
}

/// Of two orders of the same: pairs that stand alike less those that do not, as a share of all.
fn kendall(found: &[u32], wanted: &[u32]) -> f64 {
    let place = |order: &[u32]| {
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, rank)| places[*rank as usize - 1] = place);
        places
    };
    let (found, wanted) = (place(found), place(wanted));
    let pairs = (1..found.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
    let (mut alike, mut all) = (0u32, 0u32);
    for (earlier, later) in pairs {
        all += 1;
        alike += u32::from((found[earlier] < found[later]) == (wanted[earlier] < wanted[later]));
    }
    2.0 * f64::from(alike) / f64::from(all) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(ranks: &[u32]) -> RankingRow {
        RankingRow {
            user_id: "u".to_owned(),
            split: Split::Test,
            items: ranks.iter().map(u32::to_string).collect(),
            scores: vec![0.0; ranks.len()],
            probabilities: vec![0.0; ranks.len()],
            retriever_ranks: ranks.to_vec(),
        }
    }

    #[test]
    fn orders_are_compared() {
        let wanted = [order(&[1, 2, 3, 4]), order(&[3, 1, 2])];
        let same = Agreement::of(&wanted, &wanted);
        assert_eq!((same.users, same.same_first, same.kendall), (2, 1.0, 1.0));
        // Two neighbours changed places behind the first: one pair of six. And everything the other way round.
        let found = [order(&[1, 3, 2, 4]), order(&[2, 1, 3])];
        let other = Agreement::of(&found, &wanted);
        assert_eq!((other.users, other.same_first), (2, 0.5));
        assert!((other.kendall - (4.0 / 6.0 - 1.0) / 2.0).abs() < 1e-12, "{other:?}");
        assert_eq!(Agreement::of(&[], &[]).same_first, 1.0);
    }
}
