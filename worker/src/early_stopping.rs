//! What a training has reached so far, and whether to go on.

use serde::{Deserialize, Serialize};

/// The course of a training; it is the manifest of its checkpoints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    /// Steps done.
    pub(crate) step: u64,
    /// The best validation figure.
    pub(crate) best: f64,
    /// Its step.
    pub(crate) best_step: u64,
    /// Validations since the best one.
    stale: u32,
    /// (step, figure) of every validation.
    pub(crate) curve: Vec<(u64, f64)>,
}

impl Course {
    /// Notes the figure of a validation and says whether it is the best one; the first always is.
    pub(crate) fn observe(&mut self, figure: f64) -> bool {
        let better = self.curve.is_empty() || figure > self.best;
        self.curve.push((self.step, figure));
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
        due && self.step > self.curve.last().map_or(0, |(step, _)| *step)
    }
}

#[cfg(test)]
mod tests {
    use super::Course;

    #[test]
    fn a_step_is_validated_once() {
        let mut course = Course::default();
        assert!(!course.validation_due(10, 25), "there is nothing to validate before the first step");
        course.step = 10;
        assert!(course.validation_due(10, 25));
        course.observe(0.5);
        assert!(!course.validation_due(10, 25));
        course.step = 25;
        assert!(course.validation_due(10, 25), "the last step counts whatever its number");
    }

    #[test]
    fn patience_counts_validations_without_a_better_one() {
        let mut course = Course::default();
        assert!(course.observe(0.0), "the first is the best so far");
        assert!(!course.observe(0.0));
        assert!(!course.is_exhausted(2));
        assert!(!course.observe(0.0));
        assert!(course.is_exhausted(2));
        course.step = 7;
        assert!(course.observe(0.1));
        assert_eq!((course.best_step, course.is_exhausted(2)), (7, false));
    }
}
