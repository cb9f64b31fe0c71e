//! What validation says of a trained ranker: how sure its probabilities may be, and how much the retriever still knows.

use data::metrics::Metric;
use serde::{Deserialize, Serialize};

/// The file beside the adapter.
pub(crate) const FILE: &str = "calibration.json";
/// The metric that decides, NDCG@10.
const K: u32 = 10;
/// Fewer users say nothing.
const LEAST_USERS: usize = 20;
/// Shares of the retriever that are tried.
const STEPS: u32 = 20;
/// Temperatures lie between 1 / e^this and e^this.
const WIDEST: f64 = 3.0;
/// Halvings of that range.
const HALVINGS: usize = 40;

/// One validation user whose held-out item is among the candidates.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// The ranker's logits, in the retriever's order.
    pub(crate) logits: Vec<f32>,
    /// The retriever's scores of the same.
    pub(crate) retriever: Vec<f32>,
    /// Where the held-out item stands among them, from 0.
    pub(crate) answer: usize,
}

/// What was fitted, and what it brings on the same users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Logits are divided by it where probabilities are asked for.
    pub(crate) temperature: f64,
    /// The share of the retriever in a blend.
    pub(crate) blend: f64,
    /// The temperature of blended scores.
    pub(crate) blend_temperature: f64,
    /// The users that it was fitted on.
    pub(crate) users: usize,
    /// NDCG@10 of the retriever's order, of the ranker and of the blend.
    pub(crate) ndcg: [f64; 3],
    /// Mean negative log-likelihood of the held-out item, without the temperature and with it.
    pub(crate) nll: [f64; 2],
}

impl Calibration {
    /// Fits temperatures and blend; none on a handful of users.
    pub(crate) fn fit(users: &[Answered]) -> Option<Self> {
        if users.len() < LEAST_USERS {
            return None;
        }
        let temperature = temperature(users);
        let at = |blend: f64| mean(users, |user| gain(&blended(user, temperature, blend), user.answer));
        let shares = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS));
        // Of equal ones the one with less of the retriever.
        let start = (0.0, f64::NEG_INFINITY);
        let (blend, best) =
            shares.map(|share| (share, at(share))).fold(start, |best, s| if s.1 > best.1 { s } else { best });
        let of_blend = |user: &Answered| {
            let logits = blended(user, temperature, blend).into_iter().map(|score| score as f32).collect();
            Answered { logits, ..user.clone() }
        };
        Some(Self {
            temperature,
            blend,
            blend_temperature: self::temperature(&users.iter().map(of_blend).collect::<Vec<_>>()),
            users: users.len(),
            ndcg: [at(1.0), at(0.0), best],
            nll: [nll(users, 1.0), nll(users, temperature)],
        })
    }

    /// Whether a temperature went as far as it may: the ranker's logits have then little to do with what people choose, or are
    /// of another size than probabilities have.
    pub(crate) fn is_at_bound(&self) -> bool {
        [self.temperature, self.blend_temperature].iter().any(|temperature| temperature.ln().abs() > WIDEST - 1e-3)
    }

    /// The order of a user's candidates by a blend of both: mean log-probabilities.
    pub(crate) fn blend(&self, logits: &[f32], retriever: &[f32]) -> Vec<f32> {
        let user = Answered { logits: logits.to_vec(), retriever: retriever.to_vec(), answer: 0 };
        blended(&user, self.temperature, self.blend).into_iter().map(|score| score as f32).collect()
    }
}

/// The temperature under which the held-out items are likeliest, by halving: the likelihood has one maximum in 1 / temperature. 1
/// where it makes no difference.
fn temperature(users: &[Answered]) -> f64 {
    let slope = |log: f64| nll(users, (log + 1e-4).exp()) - nll(users, (log - 1e-4).exp());
    if [-WIDEST, 0.0, WIDEST].into_iter().all(|log| slope(log) == 0.0) {
        return 1.0;
    }
    let (mut low, mut high) = (-WIDEST, WIDEST);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if slope(middle) > 0.0 { high = middle } else { low = middle }
    }
    f64::midpoint(low, high).exp()
}

fn nll(users: &[Answered], temperature: f64) -> f64 {
    mean(users, |user| -log_softmax(&user.logits, temperature)[user.answer])
}

fn blended(user: &Answered, temperature: f64, blend: f64) -> Vec<f64> {
    let own = log_softmax(&user.logits, temperature);
    let retriever = log_softmax(&user.retriever, 1.0);
    own.into_iter().zip(retriever).map(|(own, retriever)| (1.0 - blend) * own + blend * retriever).collect()
}

fn log_softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|l| f64::from(*l) / temperature).collect();
    let top = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = scaled.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
    scaled.into_iter().map(|l| l - top - sum).collect()
}

/// NDCG@10 of one item among scores; of equal ones the retriever's order decides.
pub(crate) fn gain<S: PartialOrd + Copy>(scores: &[S], answer: usize) -> f64 {
    let own = scores[answer];
    gain_at(scores.iter().enumerate().filter(|(i, s)| **s > own || (**s == own && *i < answer)).count())
}

/// NDCG@10 of an item that so many stand before.
pub(crate) fn gain_at(before: usize) -> f64 {
    Metric::Ndcg.of(u32::try_from(before + 1).ok(), K)
}

fn mean(users: &[Answered], of: impl Fn(&Answered) -> f64) -> f64 {
    users.iter().map(of).sum::<f64>() / users.len() as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A ranker that is `sure` times surer than it should be, and a retriever that knows the rest.
    fn users(sure: f32) -> Vec<Answered> {
        (0..400u32)
            .map(|i| {
                // Four candidates; the ranker's logits say 1/2, 1/4, 1/8, 1/8, and the answer keeps to that.
                let answer = match i % 8 {
                    0..4 => 0,
                    4..6 => 1,
                    6 => 2,
                    _ => 3,
                };
                let logits = [8.0f32, 4.0, 2.0, 2.0].map(|share| share.ln() * sure).to_vec();
                Answered { logits, retriever: vec![0.0; 4], answer }
            })
            .collect()
    }

    #[test]
    fn a_ranker_that_is_too_sure_is_cooled_down() {
        for sure in [0.5, 1.0, 4.0] {
            let fitted = Calibration::fit(&users(sure)).unwrap();
            assert!((fitted.temperature / f64::from(sure) - 1.0).abs() < 1e-3, "{sure}: {fitted:?}");
            assert!(fitted.nll[1] <= fitted.nll[0] + 1e-12);
            assert_eq!((fitted.blend, fitted.users), (0.0, 400), "a retriever that knows nothing has no share");
        }
        assert!(Calibration::fit(&users(1.0)[..LEAST_USERS - 1]).is_none());
        // Where nobody can be told apart, there is nothing to be sure of.
        let flat: Vec<Answered> = users(0.0);
        assert_eq!(Calibration::fit(&flat).map(|fitted| fitted.temperature), Some(1.0));
    }

    #[test]
    fn a_ranker_that_is_sure_of_what_is_wrong_has_no_temperature() {
        let mut wrong = users(1.0);
        wrong.iter_mut().for_each(|user| user.logits.iter_mut().for_each(|logit| *logit = -*logit));
        assert!(Calibration::fit(&wrong).unwrap().is_at_bound());
        assert!(!Calibration::fit(&users(3.0)).unwrap().is_at_bound());
    }

    #[test]
    fn a_retriever_that_knows_the_rest_gets_a_share() {
        // Of the two that the ranker cannot tell apart, the retriever knows which.
        let mut users = users(1.0);
        for user in &mut users {
            user.logits = vec![0.0, 0.0, -3.0, -3.0];
            user.retriever = vec![1.0; 4];
            user.retriever[user.answer] = 2.0;
        }
        let fitted = Calibration::fit(&users).unwrap();
        assert!(fitted.blend > 0.0 && fitted.ndcg[2] > fitted.ndcg[1], "{fitted:?}");
        assert!(fitted.ndcg[2] >= fitted.ndcg[0]);
        let scores = fitted.blend(&users[4].logits, &users[4].retriever);
        assert!(scores[1] > scores[0]);
    }
}
