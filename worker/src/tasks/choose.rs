//! The choice among the trials of a sweep: the best on validation becomes the model that the job goes on with.

use data::artifact::sweep::{CHOICE, Choice, Judged, Settings, metric, trials_of};
use data::artifact::{self, ArtifactId, Digest, Done};
use data::job::{ModelSection, label};
use serde_json::json;

use crate::context::{Context, Output};
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// A trial that is done.
struct Trial {
    id: ArtifactId,
    settings: Settings,
    done: Done,
}

/// Whether a training stage chooses, and does not train.
pub(crate) fn is_choice(cx: &Context) -> bool {
    cx.spec.config.get(CHOICE).is_some()
}

/// Commits the files of the best trial, with its figures and those of all others.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let trials = trials(cx)?;
    let metric = metric(cx.artifact.stage);
    let figures: Vec<Option<f64>> = trials.iter().map(|trial| figure(&trial.done, metric)).collect();
    let Some(best) = choose(&figures) else {
        return Err(Error::Input { stage: cx.artifact.stage, role: CHOICE.to_owned() });
    };
    let note = describe(cx, &trials[best].settings, &figures, best);
    let output = output(cx, &trials, &figures, best)?;
    cx.progress(trials.len() as u64, trials.len() as u64, "trials", || note);
    cx.commit(0, output)
}

/// The best of some figures: the first of those that are highest, and one without a figure only if none has one.
fn choose(figures: &[Option<f64>]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (place, figure) in figures.iter().enumerate() {
        let beaten = best.is_none_or(|best| match (figure, figures[best]) {
            (Some(figure), Some(best)) => *figure > best,
            (Some(_), None) => true,
            (None, _) => false,
        });
        if beaten {
            best = Some(place);
        }
    }
    best
}

/// The best validation figure of a training, if anybody was there to validate on.
fn figure(done: &Done, metric: &str) -> Option<f64> {
    done.notes.get(metric)?.as_f64().filter(|figure| figure.is_finite())
}

fn trials(cx: &Context) -> Result<Vec<Trial>> {
    let missing = |what: &str| Error::Input { stage: cx.artifact.stage, role: what.to_owned() };
    let named = trials_of(&cx.spec).ok_or_else(|| missing(CHOICE))?;
    let read = |(id, settings): (ArtifactId, Settings)| {
        let done = cx.wait(artifact::done_record(&cx.store, &id, 0))?;
        let done = done.ok_or_else(|| missing(&format!("the done record of {id}")))?;
        Ok(Trial { id, settings, done })
    };
    named.into_iter().map(read).collect()
}

/// What was chosen, for people. Figures that are missing are not passed over in silence.
fn describe(cx: &Context, settings: &Settings, figures: &[Option<f64>], best: usize) -> String {
    let section = ModelSection::of_training(cx.artifact.stage).unwrap_or(ModelSection::Retriever);
    let (label, metric) = (label(section, settings), metric(cx.artifact.stage));
    let without = figures.iter().filter(|figure| figure.is_none()).count();
    if without > 0 {
        tracing::warn!(
            artifact = %cx.artifact,
            "{without} of {} trials have no {metric}: they had no user to validate on, and are chosen last",
            figures.len()
        );
    }
    match (figures[best], without) {
        (None, _) => format!("no trial has a {metric}: the first, {label}, is taken"),
        (Some(figure), 0) => format!("{label} is best of {}: {metric} {figure:.4}", figures.len()),
        (Some(figure), _) => {
            format!("{label} is best of {}: {metric} {figure:.4}; {without} have no figure", figures.len())
        }
    }
}

/// The model of a trial as the output of this stage.
fn output(cx: &Context, trials: &[Trial], figures: &[Option<f64>], best: usize) -> Result<Output> {
    let Trial { id, settings, done } = &trials[best];
    let mut output = Output::default();
    for file in &done.files {
        cx.check()?;
        let bytes = cx.wait(cx.store.get(&file.path))?;
        if Digest::of_bytes(&bytes) != file.sha256 {
            return Err(Error::Misfit { what: format!("{} is not what the done record of {id} says", file.path) });
        }
        let prefix = format!("{}/", id.model_prefix());
        output.file(file.path.strip_prefix(&prefix).unwrap_or(&file.path), bytes);
    }
    let judged = |(trial, figure): (&Trial, &Option<f64>)| Judged {
        settings: trial.settings.clone(),
        figure: *figure,
        digest: trial.id.digest.clone(),
    };
    let choice = Choice {
        chosen: best + 1,
        settings: settings.clone(),
        metric: metric(cx.artifact.stage).to_owned(),
        trials: trials.iter().zip(figures).map(judged).collect(),
    };
    output.stats.rows = done.rows;
    output.stats.notes = done.notes.clone();
    output.stats.notes.insert(CHOICE.to_owned(), json!(choice));
    Ok(output)
}
