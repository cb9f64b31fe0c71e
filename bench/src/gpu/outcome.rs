//! What comes out of a case whose contestants have the same weights and inputs, and how far it is apart.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// Whatever a case gives of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    /// Before the first update and behind it.
    pub(super) losses: Vec<f64>,
    /// The gradient before the first update: the same places of every tensor, in the order of names.
    pub(super) gradient: Vec<f64>,
    /// The logits of the labels, prompt by prompt.
    pub(super) scores: Vec<Vec<f64>>,
}

/// How far a peer's outcome is from ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Distance {
    /// The largest of the losses, relative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss: Option<f64>,
    /// The norm of the gradients' difference, relative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gradient: Option<f64>,
    /// The largest of the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score: Option<f64>,
    /// The share of the prompts whose best label is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) best: Option<f64>,
}

impl Distance {
    /// Of two outcomes of the same case.
    ///
    /// # Errors
    /// If one has something that the other lacks: they are not of the same case.
    pub(super) fn of(theirs: &Outcome, ours: &Outcome) -> Result<Self, String> {
        let sizes =
            |of: &Outcome| (of.losses.len(), of.gradient.len(), of.scores.iter().map(Vec::len).collect::<Vec<_>>());
        if sizes(theirs) != sizes(ours) {
            return Err("its outcome has another size than ours".to_owned());
        }
        let largest = |a: &[f64], b: &[f64], off: fn(f64, f64) -> f64| {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| off(a, b))
                .reduce(|most, off| if off > most || off.is_nan() { off } else { most })
        };
        let [mut apart, mut size] = [0.0; 2];
        for (theirs, ours) in theirs.gradient.iter().zip(&ours.gradient) {
            apart += (theirs - ours).powi(2);
            size += ours * ours;
        }
        let others = theirs.scores.iter().zip(&ours.scores).filter(|(theirs, ours)| best(theirs) != best(ours)).count();
        Ok(Self {
            loss: largest(&theirs.losses, &ours.losses, |theirs, ours| (theirs - ours).abs() / ours.abs()),
            gradient: (size > 0.0).then(|| (apart / size).sqrt()),
            score: largest(&theirs.scores.concat(), &ours.scores.concat(), |theirs, ours| (theirs - ours).abs()),
            best: (!ours.scores.is_empty()).then(|| others as f64 / ours.scores.len() as f64),
        })
    }

    /// The largest of all.
    pub(super) fn most(&self) -> f64 {
        [self.loss, self.gradient, self.score, self.best].into_iter().flatten().fold(0.0, f64::max)
    }
}

impl Display for Distance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = |what: &str, value: Option<f64>| value.map(|value| format!("{what} {value:.1e}"));
        let best = self.best.map(|share| format!("other best label {:.1} %", 100.0 * share));
        let parts = [number("loss", self.loss), number("gradient", self.gradient), number("logit", self.score), best];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// The place of the highest logit.
fn best(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_largest_difference_counts_and_another_best_label_is_told() {
        let ours =
            Outcome { losses: vec![2.0, 4.0], gradient: vec![3.0, 4.0], scores: vec![vec![0.0, 1.0], vec![5.0, 1.0]] };
        let mut theirs = ours.clone();
        assert_eq!(Distance::of(&theirs, &ours).unwrap().most(), 0.0);
        theirs.losses[1] = 3.0;
        theirs.gradient[1] = 5.0;
        theirs.scores[0] = vec![2.0, 1.0];
        let found = Distance::of(&theirs, &ours).unwrap();
        let wanted = Distance { loss: Some(0.25), gradient: Some(0.2), score: Some(2.0), best: Some(0.5) };
        assert_eq!(found, wanted);
        assert_eq!(found.to_string(), "loss 2.5e-1, gradient 2.0e-1, logit 2.0e0, other best label 50.0 %");
        theirs.losses[0] = f64::NAN;
        assert!(Distance::of(&theirs, &ours).unwrap().loss.unwrap().is_nan());
        theirs.losses.pop();
        assert!(Distance::of(&theirs, &ours).is_err());
    }
}
