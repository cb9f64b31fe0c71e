//! How fast rankers have been: noted by whoever trains one, read by whoever plans.

use data::artifact::sweep::CHOICE;
use data::artifact::{ArtifactId, Digest, Stats, done_record};
use data::job::Stage;
use data::store::Store;
use kernels::Device;
use model::ranker::{Paces, Ranker};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Card;
use crate::Result;

/// The note of a stage.
const NOTE: &str = "pace";
/// Trainings that are looked at, the newest.
const LOOKED_AT: usize = 32;

/// What rankers of earlier runs have done on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the device is called.
    pub device: String,
    /// What products were made of, as a job file calls it.
    pub precision: String,
    /// Parameters of the network: a small one reaches less of what a device can do.
    pub parameters: u64,
    /// Operations of gradients, as [`model::ranker::Footprint`] counts them, and the seconds that they took.
    pub training: [f64; 2],
    /// Those of scores, in validations.
    pub scoring: [f64; 2],
}

impl Measured {
    fn of(ranker: &Ranker, device: &Device) -> Self {
        let Paces { training, scoring } = ranker.paces();
        Self {
            device: device.name(),
            precision: ranker.options().precision.name().to_owned(),
            parameters: ranker.footprint().parameters,
            training: [training.flops, training.seconds],
            scoring: [scoring.flops, scoring.seconds],
        }
    }

    /// Operations a second of training, if there was any.
    #[must_use]
    pub fn training_rate(&self) -> Option<f64> {
        rate(self.training)
    }

    /// Those of scoring.
    #[must_use]
    pub fn scoring_rate(&self) -> Option<f64> {
        rate(self.scoring)
    }

    /// Whether it was measured on such a card.
    #[must_use]
    pub fn is_on(&self, card: &Card) -> bool {
        let words: Vec<&str> = self.device.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        card.marks.iter().all(|mark| words.contains(mark))
    }

    /// Whether the other is about the same.
    fn is_like(&self, other: &Self) -> bool {
        (&self.device, &self.precision, self.parameters) == (&other.device, &other.precision, other.parameters)
    }

    fn add(&mut self, other: &Self) {
        let pairs = [(&mut self.training, other.training), (&mut self.scoring, other.scoring)];
        for (sums, more) in pairs {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// Notes in the statistics of a training what its ranker has done so far.
pub(crate) fn note(ranker: &Ranker, device: &Device, stats: &mut Stats) {
    stats.notes.insert(NOTE.to_owned(), json!(Measured::of(ranker, device)));
}

/// What finished trainings under a root have noted, device by device. What cannot be understood is left out: it is no more than
/// a hint.
///
/// # Errors
/// The store's own failures.
pub async fn measured(store: &Store) -> Result<Vec<Measured>> {
    let mut found: Vec<Measured> = Vec::new();
    for id in newest(store).await? {
        let done = match done_record(store, &id, 0).await {
            Err(data::Error::Control { .. }) => continue,
            done => done?,
        };
        // What a sweep has chosen repeats the notes of the trial.
        let note = done.as_ref().filter(|done| !done.notes.contains_key(CHOICE)).and_then(|done| done.notes.get(NOTE));
        let Some(noted) = note.and_then(|note| Measured::deserialize(note).ok()) else { continue };
        match found.iter_mut().find(|at| at.is_like(&noted)) {
            Some(at) => at.add(&noted),
            None => found.push(noted),
        }
    }
    Ok(found)
}

/// The trainings that were planned last.
async fn newest(store: &Store) -> Result<Vec<ArtifactId>> {
    let stage = Stage::TrainRanker;
    let folder = format!("_control/v1/artifacts/{stage}");
    let mut planned = Vec::new();
    for (path, stat) in store.list_stamped(&folder).await? {
        let digest = path[folder.len()..].trim_start_matches('/').strip_suffix("/plan.json");
        if let Some(digest) = digest.and_then(|digest| Digest::try_from(digest.to_owned()).ok()) {
            planned.push((stat.modified, ArtifactId { stage, digest }));
        }
    }
    planned.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(planned.into_iter().take(LOOKED_AT).map(|(_, id)| id).collect())
}

fn rate([flops, seconds]: [f64; 2]) -> Option<f64> {
    (flops > 0.0 && seconds > 0.0).then(|| flops / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_the_words_of_their_names() {
        let on = |device: &str, card: &str| {
            let measured = Measured {
                device: device.to_owned(),
                precision: "bf16".to_owned(),
                parameters: 7,
                training: [6.0, 2.0],
                scoring: [0.0; 2],
            };
            assert_eq!((measured.training_rate(), measured.scoring_rate()), (Some(3.0), None));
            measured.is_on(&Card::named(card).unwrap_or_else(|| panic!("{card}")))
        };
        assert!(
            on("NVIDIA H200", "h200")
                && on("NVIDIA A100-SXM4-80GB", "a100-80g")
                && on("NVIDIA GeForce RTX 4090", "rtx4090")
        );
        assert!(!on("NVIDIA L40S", "l4") && !on("NVIDIA A100-SXM4-40GB", "a100-80g") && !on("CPU, 2 threads", "h100"));
    }
}
