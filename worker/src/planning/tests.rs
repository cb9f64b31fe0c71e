#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use super::*;

/// A shop of 40 people with eight items each, and the demo's base.
fn job(folder: &Path, more: &str) -> Job {
    let mut csv = "user,item,title\n".to_owned();
    for user in 0..40 {
        for step in 0..8 {
            let item = (user * 3 + step * step) % 30;
            writeln!(csv, "u{user},i{item},Cup number {item}").unwrap();
        }
    }
    std::fs::write(folder.join("log.csv"), csv).unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base");
    let toml = format!(
        "schema_version = 1\nname = \"shop\"\n[dataset]\nformat = \"table\"\npath = {:?}\nmin_interactions_per_item = 1\n\
         [dataset.columns]\nuser = \"user\"\nitem = \"item\"\ntitle = \"title\"\n[ranker]\nbase = {base:?}\nmax_prompt_tokens = 400\n\
         {more}\n",
        folder.join("log.csv"),
    );
    let mut job = Job::parse("shop.toml", &toml, &[]).unwrap();
    job.inline_template(model::ranker::DEFAULT_TEMPLATE.to_owned());
    job
}

#[tokio::test]
async fn a_plan_counts_what_the_job_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path(), "batch_size = 7\nvalidate_every = 10");
    let plan = Plan::of(&job, folder.path()).await.unwrap();
    let training = plan.training.unwrap();
    assert_eq!(plan.counts.users, 40);
    assert!(plan.prompts.training.sampled() == 40 && plan.prompts.scoring.sampled() == 40);
    assert_eq!(training.steps, training.examples.div_ceil(7));
    assert_eq!(training.validations, training.steps.div_ceil(10));
    assert_eq!(plan.scored, 2 * 40);
    let (least, most) = (plan.prompts.scoring.quantile(0.0), plan.prompts.scoring.quantile(1.0));
    let mean = plan.prompts.scoring.mean();
    assert!(least as f64 <= mean && mean <= most as f64 && most <= 400, "{least} {mean} {most}");
    let shares: f64 = plan.prompts.scoring.histogram(50).iter().map(|(_, share)| share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_card_that_is_too_small_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::of(&job(folder.path(), ""), folder.path()).await.unwrap();
    let at = |card: &Card| plan.on(card, &plan.rates(card, &[]));
    let large = at(&Card::named("H200").unwrap());
    assert!(large.fits && large.longest > 400 && large.hours.iter().all(|hours| *hours > 0.0));
    let tiny = Card { name: "tiny", marks: &["tiny"], memory: 1 << 20, f32_tflops: 1.0, bf16_tflops: 1.0 };
    assert!(!at(&tiny).fits);
    assert!(Card::named("pentium").is_none());
}

#[tokio::test]
async fn what_earlier_runs_have_measured_counts_before_what_is_assumed() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::of(&job(folder.path(), ""), folder.path()).await.unwrap();
    let card = Card::named("l4").unwrap();
    let earlier = |device: &str, precision: &str| Measured {
        device: device.to_owned(),
        precision: precision.to_owned(),
        parameters: plan.footprint.parameters,
        training: [4e12, 2.0],
        scoring: [0.0; 2],
    };
    let assumed = plan.rates(&card, &[earlier("NVIDIA L40S", "bf16"), earlier("NVIDIA L4", "f32")]);
    assert!(!assumed.measured && assumed.training == ASSUMED_SHARE * 121e12);
    let smaller = Measured { parameters: 1, ..earlier("NVIDIA L4", "bf16") };
    assert!(!plan.rates(&card, &[smaller]).measured);
    let measured = plan.rates(&card, &[earlier("NVIDIA L40S", "bf16"), earlier("NVIDIA L4", "bf16")]);
    assert_eq!(measured, Rates { training: 2e12, scoring: 2e12, measured: true });
    let hours = [assumed, measured].map(|rates| plan.hours(&rates, false));
    assert!((hours[1][0] / hours[0][0] - 121.0 * ASSUMED_SHARE / 2.0).abs() < 1e-6, "{hours:?}");
}
