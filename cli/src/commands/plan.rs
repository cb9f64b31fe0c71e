//! `mllm4rec plan`: what a job's ranker will take, before it runs.

use anyhow::Result;
use coordinator::Earlier;
use data::job::{CaptionsFrom, Job, ModelFrom, ModelSection, Stage};
use data::store::Store;
use serde_json::{Value, json};
use worker::planning::{ASSUMED_SHARE, CARDS, Card, Lengths, Measured, OnCard, Plan, Rates, measured};

use crate::args::PlanArgs;
use crate::commands::read_job;
use crate::exit;
use crate::progress::grouped;
use crate::terminal::print;

/// Ranges of the histogram of prompt lengths.
const BINS: usize = 12;
/// The widest bar of it.
const BAR: f64 = 40.0;
const GIB: f64 = (1u64 << 30) as f64;

/// Prints the plan.
pub(crate) async fn run(args: PlanArgs) -> Result<u8> {
    let mut job = read_job(&args.config, &args.sets, args.root.as_deref())?;
    if !job.runs(Stage::TrainRanker) && !job.runs(Stage::Rank) {
        return Err(exit::BadRequest("the job has no ranker: there is nothing to plan".to_owned()).into());
    }
    if [&job.retriever.from, &job.ranker.from].iter().any(|from| matches!(from, ModelFrom::Job(_))) {
        // The settings come with the models.
        let store =
            Store::open_existing(&job.output.root).map_err(|e| exit::BadRequest(format!("output.root: {e}")))?;
        Earlier::models(&store, &mut job).await.map_err(|e| exit::BadRequest(e.to_string()))?;
    }
    let cards = cards(args.card.as_deref().unwrap_or(&job.cluster.card))?;
    data::prepare::input_files(&job.dataset).map_err(|e| exit::BadRequest(e.to_string()))?;
    let spool = tempfile::tempdir()?;
    let plan = Plan::of(&job, spool.path()).await?;
    let earlier = earlier(&job.output.root).await;
    if args.json {
        print(format_args!("{:#}", in_json(&job, &plan, &cards, &earlier)));
        return Ok(exit::DONE);
    }
    print(format_args!("{}", in_words(&job, &plan, &cards, &earlier)));
    Ok(exit::DONE)
}

/// What trainings under the job's root have measured. A root that is not there yet, or cannot be asked, knows nothing.
async fn earlier(root: &str) -> Vec<Measured> {
    let Ok(store) = Store::open_existing(root) else { return Vec::new() };
    measured(&store).await.unwrap_or_else(|error| {
        tracing::debug!(%error, root, "no rates of earlier runs");
        Vec::new()
    })
}

/// The card that is named, or all.
fn cards(name: &str) -> Result<Vec<Card>> {
    if name.is_empty() {
        return Ok(CARDS.to_vec());
    }
    let known = CARDS.map(|card| card.name).join(", ");
    let unknown = || exit::BadRequest(format!("cluster.card: `{name}` is not known; known are {known}"));
    Ok(vec![Card::named(name).ok_or_else(unknown)?])
}

fn in_words(job: &Job, plan: &Plan, cards: &[Card], earlier: &[Measured]) -> String {
    let (counts, footprint) = (&plan.counts, &plan.footprint);
    let mut lines = vec![
        format!(
            "data      {} users, {} items, {} interactions",
            grouped(counts.users),
            grouped(counts.items),
            grouped(counts.interactions)
        ),
        format!(
            "base      {} parameters, {} of them trained ({})",
            grouped(footprint.parameters),
            grouped(footprint.trained),
            job.ranker.base
        ),
    ];
    if let Some(training) = plan.training {
        lines.push(format!(
            "training  {} examples, {} in a step: {} steps ({:.2} epochs), {} tokens, {} validations",
            grouped(training.examples),
            training.batch_size,
            grouped(training.steps),
            training.epochs(),
            grouped((plan.prompts.training.mean() * (training.steps * training.batch_size) as f64) as u64),
            training.validations
        ));
        lines.extend(match job.trials(ModelSection::Ranker).len() {
            0 => None,
            trials => Some(format!("sweep     {trials} such trainings, each with its own settings: what follows is of one, with the settings outside of [sweep]")),
        });
        lines.push(format!("\nlength of training prompts, tokens ({})", lengths(&plan.prompts.training)));
        lines.push(histogram(&plan.prompts.training));
    }
    if plan.scored > 0 {
        lines.push(format!(
            "scoring   {} prompts, {} tokens ({})",
            grouped(plan.scored),
            grouped((plan.prompts.scoring.mean() * plan.scored as f64) as u64),
            lengths(&plan.prompts.scoring)
        ));
    }
    if plan.prompts.shortened > 0.0 {
        lines.push(format!(
            "          {:.1} % of the prompts lose some of their history to ranker.max_prompt_tokens = {}",
            100.0 * plan.prompts.shortened,
            job.ranker.max_prompt_tokens
        ));
    }
    if job.captions.from != CaptionsFrom::None {
        lines.push(format!(
            "          captions are not read: each is counted with as many tokens as a prompt takes of one ({})",
            job.ranker.caption_tokens
        ));
    }
    if job.ranker.fp8 {
        lines.push("          eight bits (ranker.fp8) are in the memory of scoring and not in its hours".to_owned());
    }
    lines.push(memory(job, plan));
    lines.push(format!(
        "\non one card, at {:.0} % of its peak in {} where no earlier run under {} says more{}",
        100.0 * ASSUMED_SHARE,
        plan.precision.name(),
        job.output.root,
        price(job)
    ));
    lines.extend(cards.iter().map(|card| on_card(job, plan, card, earlier)));
    lines.extend(earlier.iter().filter_map(|measured| as_measured(plan, measured)));
    lines.join("\n")
}

fn lengths(lengths: &Lengths) -> String {
    let [least, median, most] = [0.0, 0.5, 1.0].map(|share| lengths.quantile(share));
    format!("mean {:.0}, from {least} over {median} to {most}; {} made", lengths.mean(), lengths.sampled())
}

fn histogram(lengths: &Lengths) -> String {
    let spread = lengths.quantile(1.0) - lengths.quantile(0.0);
    let width = (spread / BINS).next_multiple_of(16).max(16);
    let bins = lengths.histogram(width);
    let most = bins.iter().map(|(_, share)| *share).fold(1e-9, f64::max);
    let line = |(from, share): &(usize, f64)| {
        let bar = "█".repeat((share / most * BAR).round() as usize);
        format!("{from:>7} – {:<6} {bar} {:.1} %", from + width - 1, 100.0 * share)
    };
    bins.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Memory by part, for the micro-batch of the job and for the longest prompt alone.
fn memory(job: &Job, plan: &Plan) -> String {
    let f = &plan.footprint;
    let together = plan.micro_batch_tokens.max(plan.longest);
    let [all, least] = f.activations_per_token;
    format!(
        "\nmemory    weights {}{}, adapters with gradients and optimiser {}\n          {} tokens together (ranker.micro_batch_tokens): activations {}, \
         working memory {}\n          the longest of these prompts alone ({} tokens; ranker.max_prompt_tokens = {}), activations \
         computed again: {} and {}",
        size(f.weights),
        f.weights_decoded.map_or(String::new(), |bytes| format!(
            " ({} decoded, where that is no more than half of a card)",
            size(bytes)
        )),
        size(f.trained_bytes),
        grouped(together),
        size(all * together),
        size(f.working_bytes(together)),
        plan.longest,
        job.ranker.max_prompt_tokens,
        size(least * plan.longest),
        size(f.working_bytes(plan.longest))
    )
}

fn size(bytes: u64) -> String {
    if bytes as f64 >= GIB {
        format!("{:.2} GiB", bytes as f64 / GIB)
    } else {
        format!("{:.1} MiB", bytes as f64 / GIB * 1024.0)
    }
}

fn price(job: &Job) -> String {
    if job.cluster.card_hour > 0.0 { format!(", {} an hour", job.cluster.card_hour) } else { String::new() }
}

fn on_card(job: &Job, plan: &Plan, card: &Card, earlier: &[Measured]) -> String {
    let rates = plan.rates(card, earlier);
    let on = plan.on(card, &rates);
    if !on.fits {
        let least = if plan.training.is_some() { on.bytes[1] } else { on.bytes[2] };
        return format!("  {:<9} does not fit: {} at least, with one prompt at a time", card.name, size(least));
    }
    let (needed, room) = match (on.bytes, plan.training) {
        ([all, ..], Some(_)) if all <= card.usable() => (all, ""),
        (_, Some(_)) if on.again <= card.usable() => (on.again, ", activations computed again"),
        ([_, least, _], Some(_)) => (least, " and more, with fewer tokens together"),
        ([.., scoring], None) if scoring <= card.usable() => (scoring, ""),
        ([.., scoring], None) => (scoring.min(card.usable()), ", with fewer tokens together"),
    };
    let memory = format!("{} of {:.0} GiB", size(needed), card.memory as f64 / GIB);
    let work = in_hours(plan, on.hours);
    let source = if rates.measured { " (as measured)" } else { "" };
    let total: f64 = on.hours.iter().sum();
    let cost = match job.cluster.card_hour {
        price if price > 0.0 => format!(", cost {:.2}", total * price),
        _ => String::new(),
    };
    format!("  {:<9} {work}{source}{cost}; {memory}{room}{}", card.name, knob(job, on.longest))
}

/// The job on a device that no table knows, as fast as it was in earlier runs.
fn as_measured(plan: &Plan, measured: &Measured) -> Option<String> {
    if CARDS.iter().any(|card| measured.is_on(card)) || measured.parameters != plan.footprint.parameters {
        return None;
    }
    let rates = Rates::of(measured)?;
    let (work, precision) = (in_hours(plan, plan.hours(&rates, false)), &measured.precision);
    Some(format!("  {}, {precision}: {work} (as measured, {:.2} TFLOP/s)", measured.device, rates.training / 1e12))
}

fn in_hours(plan: &Plan, of: [f64; 3]) -> String {
    let [training, validation, scoring] = of.map(hours);
    match plan.training {
        Some(_) => format!("training {training}, validations at most {validation}, scoring {scoring}"),
        None => format!("scoring {scoring}"),
    }
}

/// How far the longest prompt could be raised, where the card sets the limit.
fn knob(job: &Job, longest: u64) -> String {
    if longest >= 4 * u64::from(job.ranker.max_prompt_tokens) {
        return String::new();
    }
    format!("; ranker.max_prompt_tokens up to {} would fit", grouped(longest))
}

fn hours(hours: f64) -> String {
    match hours {
        h if h >= 1.0 => format!("{h:.1} h"),
        h if h * 60.0 >= 1.0 => format!("{:.0} min", h * 60.0),
        h if h * 3600.0 >= 1.0 => format!("{:.0} s", h * 3600.0),
        _ => "under a second".to_owned(),
    }
}

fn in_json(job: &Job, plan: &Plan, cards: &[Card], earlier: &[Measured]) -> Value {
    let lengths = |l: &Lengths| {
        let quantiles = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0].map(|share| l.quantile(share));
        json!({"mean": l.mean(), "min": quantiles[0], "p10": quantiles[1], "p50": quantiles[2], "p90": quantiles[3],
               "p99": quantiles[4], "max": quantiles[5], "sampled": l.sampled()})
    };
    let card = |card: &Card| {
        let rates = plan.rates(card, earlier);
        let OnCard { bytes, again, fits, longest, hours } = plan.on(card, &rates);
        let cost = (job.cluster.card_hour > 0.0).then(|| hours.iter().sum::<f64>() * job.cluster.card_hour);
        json!({
            "card": card.name, "memory_bytes": card.memory, "fits": fits, "longest_prompt_tokens": longest,
            "training_bytes": bytes[0], "training_bytes_again": again, "training_bytes_least": bytes[1],
            "scoring_bytes": bytes[2],
            "training_hours": hours[0], "validation_hours_at_most": hours[1], "scoring_hours": hours[2], "cost": cost,
            "training_flops_per_second": rates.training, "scoring_flops_per_second": rates.scoring,
            "measured": rates.measured, "assumed_share_of_peak": ASSUMED_SHARE,
        })
    };
    let (counts, f) = (&plan.counts, &plan.footprint);
    json!({
        "users": counts.users, "items": counts.items, "interactions": counts.interactions,
        "precision": plan.precision.name(), "parameters": f.parameters, "trained_parameters": f.trained,
        "training": plan.training.map(|t| json!({
            "examples": t.examples, "batch_size": t.batch_size, "steps": t.steps, "epochs": t.epochs(),
            "validations": t.validations, "trials": job.trials(ModelSection::Ranker).len().max(1), "prompt_tokens": lengths(&plan.prompts.training),
        })),
        "scoring": {"prompts": plan.scored, "prompt_tokens": lengths(&plan.prompts.scoring)},
        "shortened_share": plan.prompts.shortened,
        "memory": {
            "weights": f.weights, "weights_decoded": f.weights_decoded, "trained": f.trained_bytes, "micro_batch_tokens": plan.micro_batch_tokens,
            "activations_per_token": f.activations_per_token[0], "activations_per_token_least": f.activations_per_token[1],
            "working_per_token": f.working_per_token, "decoded": f.decoded,
        },
        "earlier_runs": earlier, "cards": cards.iter().map(card).collect::<Vec<_>>(),
    })
}
