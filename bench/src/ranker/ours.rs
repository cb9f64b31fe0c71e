//! Our side of the bench, as a contestant.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use kernels::Device;
use model::ranker::{Example, LoraOptions, Quantize, Ranker, RankerOptions, Trainable};
use model::weights;

use super::problem::Problem;
use super::{Answer, Order};
use crate::contest::serve;
use crate::machine::{forget_peak, peak_bytes};

/// Everything in memory.
struct Ready {
    device: Device,
    problem: Problem,
    ranker: Ranker,
    examples: Vec<Example>,
}

/// Answers commands until standard input ends.
pub(crate) fn contestant() -> Result<()> {
    let mut ready: Option<Ready> = None;
    serve(|order: Order| {
        if let Order::Prepare { problem, threads } = &order {
            ready = Some(Ready::new(serde_json::from_slice(&std::fs::read(problem)?)?, *threads)?);
            return Ok(Answer::default());
        }
        let Ready { device, problem, ranker, examples } = ready.as_mut().context("prepare comes first")?;
        forget_peak();
        let mut answer = Answer::default();
        let repeats = match order {
            Order::Train { repeats } | Order::Score { repeats } => repeats,
            Order::Make { .. } | Order::Prepare { .. } => bail!("only the twin makes checkpoints"),
        };
        for _ in 0..repeats {
            let began = Instant::now();
            if let Order::Train { .. } = order {
                answer.losses.push(device.run(|| ranker.train_step(examples, problem.learning_rate))?.loss);
            } else {
                let scores = device.run(|| {
                    let shared = ranker.share(&problem.prompts[0][..problem.shared])?;
                    ranker.score(Some(&shared), &problem.prompts, &problem.labels)
                })?;
                answer.scores = scores.into_iter().map(|s| s.into_iter().map(f64::from).collect()).collect();
            }
            answer.milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Answer { bytes: peak_bytes(), ..answer })
    })
}

impl Ready {
    fn new(problem: Problem, threads: usize) -> Result<Self> {
        let device = Device::cpu(threads)?;
        let lora = LoraOptions { rank: problem.rank, alpha: problem.alpha, dropout: 0.0, ..LoraOptions::default() };
        let options = RankerOptions {
            quantize: Quantize::None,
            trainable: Trainable::Lora(lora),
            micro_batch_tokens: 4096,
            ..RankerOptions::default()
        };
        let mut ranker = device.run(|| Ranker::load(&problem.model, options, &device))?;
        let factors = weights::from_bytes_f32("factors", &std::fs::read(&problem.factors)?)?;
        factors.expect_like(ranker.params())?;
        *ranker.params_mut() = factors;
        let examples = problem.examples.iter().zip(0..).map(|(text, key)| Example::from_text(text, 2, key));
        Ok(Self { examples: examples.collect::<Result<_, _>>()?, device, problem, ranker })
    }
}
