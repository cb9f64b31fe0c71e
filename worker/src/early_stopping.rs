//! What a training has reached so far, and whether to go on.

use data::artifact::Stats;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The course of a training; it is the manifest of its checkpoints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    /// Steps done.
    pub(crate) step: u64,
    /// Those of them that changed nothing, as their gradients were no numbers.
    #[serde(default)]
    pub(crate) skipped: u64,
    /// The last ones of these, without any other between them.
    #[serde(default)]
    pub(crate) skipped_in_row: u32,
    /// The loss of the last one.
    pub(crate) loss: Option<f64>,
    /// The best validation figure, once there is one.
    pub(crate) best: Option<f64>,
    /// The step of the weights that are kept; 0 while there are none.
    pub(crate) best_step: u64,
    /// The step of the last validation.
    pub(crate) validated: u64,
    /// Validations since the best one.
    pub(crate) stale: u32,
    /// (step, figure) of every validation.
    pub(crate) curve: Vec<(u64, f64)>,
    /// Seconds that went into the steps so far, over all attempts.
    pub(crate) seconds: f64,
}

impl Course {
    /// Notes the figure of a validation and says whether the present weights are to be kept: if they are the best so
    /// far, or if there was nobody to validate on.
    pub(crate) fn observe(&mut self, figure: Option<f64>) -> bool {
        let figure = figure.filter(|figure| figure.is_finite());
        self.validated = self.step;
        self.curve.extend(figure.map(|figure| (self.step, figure)));
        let better = self.best.is_none() || figure > self.best;
        if better {
            (self.best, self.best_step, self.stale) = (figure, self.step, 0);
        } else {
            self.stale += 1;
        }
        better
    }

    /// Whether `patience` validations in a row brought nothing better.
    pub(crate) fn is_exhausted(&self, patience: u32) -> bool {
        self.stale >= patience
    }

    /// Whether it is time to validate: every so many steps and at the end, once.
    pub(crate) fn validation_due(&self, every: u32, last: u64) -> bool {
        let due = self.step.is_multiple_of(u64::from(every)) || self.step >= last;
        due && self.step > self.validated
    }

    /// Puts the course into the figures of a commit; `best` is the name of the best validation figure.
    pub(crate) fn describe(&self, best: &str, stats: &mut Stats) {
        (stats.steps, stats.seconds) = (self.step, self.seconds);
        let notes = [
            ("steps", json!(self.step)),
            ("best_step", json!(self.best_step)),
            (best, json!(self.best)),
            ("loss", json!(self.loss)),
            ("curve", json!(self.curve)),
        ];
        stats.notes.extend(notes.map(|(name, note)| (name.to_owned(), note)));
        if self.skipped > 0 {
            stats.notes.insert("skipped_steps".to_owned(), json!(self.skipped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Course;

    #[test]
    fn figures_are_read_as_they_were_written() {
        for figure in [0.1 + 0.2, 1.0 / 3.0, f64::MIN_POSITIVE, 1e300] {
            let course = Course { loss: Some(figure), curve: vec![(3, figure)], ..Course::default() };
            let text = serde_json::to_string(&course).expect("it has only string keys");
            let read: Course = serde_json::from_str(&text).expect("it was just written");
            let bits = |figure: Option<f64>| figure.map(f64::to_bits);
            assert_eq!((bits(read.loss), read.best), (bits(Some(figure)), None));
            assert_eq!((read.curve[0].0, read.curve[0].1.to_bits()), (3, figure.to_bits()));
        }
    }

    #[test]
    fn a_step_is_validated_once() {
        let mut course = Course::default();
        assert!(!course.validation_due(10, 25), "there is nothing to validate before the first step");
        course.step = 10;
        assert!(course.validation_due(10, 25));
        course.observe(Some(0.5));
        assert!(!course.validation_due(10, 25));
        course.step = 25;
        assert!(course.validation_due(10, 25), "the last step counts whatever its number");
    }

    #[test]
    fn patience_counts_validations_without_a_better_one() {
        let mut course = Course::default();
        assert!(course.observe(Some(0.0)), "the first is the best so far");
        assert!(!course.observe(Some(0.0)));
        assert!(!course.is_exhausted(2));
        assert!(!course.observe(Some(0.0)));
        assert!(course.is_exhausted(2));
        course.step = 7;
        assert!(course.observe(Some(0.1)));
        assert_eq!((course.best_step, course.is_exhausted(2)), (7, false));
    }

    #[test]
    fn with_nobody_to_validate_on_the_last_weights_are_kept() {
        let mut course = Course { step: 10, ..Course::default() };
        assert!(course.observe(None));
        course.step = 20;
        assert!(course.observe(None));
        assert_eq!((course.best, course.best_step, course.curve.len()), (None, 20, 0));
        assert!(!course.is_exhausted(1));
    }
}
