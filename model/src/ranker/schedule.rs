//! The learning rate over the steps: warm-up, then linear decay to 0.

/// Linear warm-up over `warmup_steps`, then linear decay that reaches 0 at `total_steps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The largest rate.
    pub learning_rate: f32,
    /// Steps until the largest rate.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0. The first step of a warm-up has rate 0.
    ///
    /// # Source
    /// The linear schedule of the HF Trainer.
    #[must_use]
    pub fn at(&self, step: u64) -> f32 {
        let factor = if step < self.warmup_steps {
            step as f64 / self.warmup_steps as f64
        } else {
            let left = self.total_steps.saturating_sub(step) as f64;
            left / self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64
        };
        (f64::from(self.learning_rate) * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn rises_then_falls_to_zero() {
        let schedule = Schedule { learning_rate: 1.0, warmup_steps: 4, total_steps: 12 };
        let rates: Vec<f32> = [0, 1, 4, 8, 11, 12, 20].iter().map(|&s| schedule.at(s)).collect();
        assert_eq!(rates, [0.0, 0.25, 1.0, 0.5, 0.125, 0.0, 0.0]);
    }

    #[test]
    fn without_warm_up_it_starts_at_the_top() {
        let schedule = Schedule { learning_rate: 0.5, warmup_steps: 0, total_steps: 1 };
        assert_eq!(schedule.at(0), 0.5);
    }
}
