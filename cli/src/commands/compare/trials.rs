//! The trials of a job's sweep, as the store has them: while they run too.

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use coordinator::records::{self, StageRecord};
use data::artifact::sweep::{self, Settings};
use data::artifact::{ArtifactId, Done, done_record};
use data::job::{ModelSection, plain};
use data::store::Store;
use serde_json::{Value, json};

use super::BEST;
use crate::exit::{self, BadRequest};
use crate::progress::{clock, grouped};
use crate::target;
use crate::terminal::print;

/// The trials of one model of a job.
struct Grid {
    section: ModelSection,
    metric: &'static str,
    /// The place of the trial that was chosen, once one was.
    chosen: Option<usize>,
    trials: Vec<Trial>,
}

struct Trial {
    place: usize,
    settings: Settings,
    /// Nothing while it is not done.
    done: Option<Done>,
    figure: Option<f64>,
}

/// Shows the trials of every job.
pub(super) async fn run(store: &Store, jobs: &[String], json: bool) -> Result<u8> {
    let mut all = Vec::new();
    for meant in jobs {
        let job = target::job_in(store, meant).await?;
        let grids = grids(store, &records::stages(store, &job).await?).await?;
        if grids.is_empty() {
            return Err(BadRequest(format!("job {job} has no sweep, so it has no trials; leave out --trials")).into());
        }
        all.push((job, grids));
    }
    if json {
        let value = |(job, grids): &(String, Vec<Grid>)| json!({"job": job, "models": grids.iter().map(Grid::json).collect::<Vec<_>>()});
        print(format_args!("{:#}", all.iter().map(value).collect::<Value>()));
        return Ok(exit::DONE);
    }
    for (job, grids) in &all {
        for grid in grids {
            print(format_args!("{}\n{}", grid.headline(job), grid.table()));
        }
    }
    Ok(exit::DONE)
}

async fn grids(store: &Store, stages: &[StageRecord]) -> Result<Vec<Grid>> {
    let mut grids = Vec::new();
    for section in ModelSection::ALL {
        let choice = stages.iter().find(|record| record.is(section.training(), None));
        let Some((record, spec)) = choice.and_then(|record| Some((record, record.spec.as_ref()?))) else { continue };
        let Some(named) = sweep::trials_of(spec) else { continue };
        let metric = sweep::metric(section.training());
        let mut trials = Vec::new();
        for (place, (id, settings)) in named.into_iter().enumerate() {
            trials.push(trial(store, place + 1, &id, settings, metric).await?);
        }
        // Best first, and in the order of the grid where figures are equal or missing.
        trials.sort_by(|a, b| b.figure.unwrap_or(-1.0).total_cmp(&a.figure.unwrap_or(-1.0)));
        let chosen = sweep::choice(store, &record.artifact()).await?.map(|choice| choice.chosen);
        grids.push(Grid { section, metric, chosen, trials });
    }
    Ok(grids)
}

async fn trial(store: &Store, place: usize, id: &ArtifactId, settings: Settings, metric: &str) -> Result<Trial> {
    let done = done_record(store, id, 0).await?;
    let figure = done.as_ref().and_then(|done| done.notes.get(metric)?.as_f64());
    Ok(Trial { place, settings, done, figure })
}

impl Grid {
    fn headline(&self, job: &str) -> String {
        let done = self.trials.iter().filter(|trial| trial.done.is_some()).count();
        let state = match self.chosen {
            Some(chosen) => format!("trial {chosen} was chosen"),
            None => format!("{done} are done, none is chosen yet"),
        };
        format!("{job}, {}: {} trials, {state}", self.section.training(), self.trials.len())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let keys: Vec<&String> = self.trials.first().into_iter().flat_map(|trial| trial.settings.keys()).collect();
        let names = keys.iter().map(|key| key.as_str());
        table.set_header(["trial"].into_iter().chain(names).chain([self.metric, "best step", "steps", "time"]));
        for trial in &self.trials {
            let mark = if self.chosen == Some(trial.place) { BEST } else { "" };
            let mut cells = vec![format!("{}{mark}", trial.place)];
            cells.extend(keys.iter().map(|key| trial.settings.get(*key).map(plain).unwrap_or_default()));
            cells.extend(trial.cells());
            table.add_row(cells);
        }
        table
    }

    fn json(&self) -> Value {
        let trial = |trial: &Trial| {
            json!({
                "trial": trial.place, "settings": trial.settings, "done": trial.done.is_some(), "figure": trial.figure,
                "best_step": trial.note("best_step"), "steps": trial.done.as_ref().map(|done| done.steps),
                "seconds": trial.done.as_ref().map(|done| done.seconds), "chosen": self.chosen == Some(trial.place),
            })
        };
        json!({
            "stage": self.section.training().as_str(), "metric": self.metric, "chosen": self.chosen,
            "trials": self.trials.iter().map(trial).collect::<Vec<_>>(),
        })
    }
}

impl Trial {
    fn note(&self, name: &str) -> Option<&Value> {
        self.done.as_ref()?.notes.get(name)
    }

    /// Figure, best step, steps, time.
    fn cells(&self) -> [String; 4] {
        let Some(done) = &self.done else { return ["not done", "", "", ""].map(str::to_owned) };
        let step = self.note("best_step").and_then(Value::as_u64).unwrap_or(0);
        let time = std::time::Duration::try_from_secs_f64(done.seconds).unwrap_or_default();
        let figure = self.figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.4}"));
        [figure, grouped(step), grouped(done.steps), clock(time)]
    }
}
