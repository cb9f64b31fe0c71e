//! All scores, sorted.

use super::{Problem, Scored, worst_if_nan};

/// Every class that can be chosen, best first.
pub(super) fn order(problem: &Problem<'_>, row: usize) -> Vec<Scored> {
    let d = problem.d;
    let score = |id: u32| {
        let w = &problem.weight[id as usize * d..][..d];
        let dot: f64 = problem.x[row * d..][..d].iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        (dot + problem.bias.map_or(0.0, |b| f64::from(b[id as usize]))) as f32
    };
    let mut all: Vec<Scored> = (problem.first_class as u32..problem.classes as u32)
        .filter(|id| !problem.exclude[row].contains(id))
        .map(|id| Scored { id, score: score(id) })
        .collect();
    let key = |s: &Scored| worst_if_nan(s.score);
    all.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.id.cmp(&b.id)));
    all
}
