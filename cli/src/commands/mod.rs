//! One file per command.

pub(crate) mod adapter;
pub(crate) mod cancel;
pub(crate) mod captions;
pub(crate) mod certs;
pub(crate) mod compare;
pub(crate) mod coordinator;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod doctor_store;
pub(crate) mod gc;
pub(crate) mod k8s;
pub(crate) mod logs;
pub(crate) mod outputs;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shop;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod token;
pub(crate) mod validate;
pub(crate) mod worker;

use std::path::Path;

use ::worker::decoders::DecoderCommand;
use anyhow::{Context, Result};
use data::job::{CaptionsFrom, Job, ModelSection, Stage};
use data::store::Store;
use serde_json::Value;

use crate::named_files::relative;

/// Reads a job file with its overrides and the prompt template that it names, and checks what it needs of this machine.
pub(crate) fn read_job(config: &Path, sets: &[String], root: Option<&str>) -> Result<Job> {
    let mut sets = sets.to_vec();
    sets.extend(root.map(|root| format!("output.root={}", toml::Value::String(root.to_owned()))));
    let job = parse_job(config, &sets)?;
    if job.runs(Stage::Pictures) {
        check_captioner(&job)?;
    }
    if has_own_prompt(&job) {
        check_base(&job)?;
    }
    Ok(job)
}

/// The same for a job that other machines run. A relative path is one of this machine, and an absolute one may be:
/// what is here is checked here, and of the rest the coordinator will tell.
pub(crate) fn read_job_for_others(config: &Path, sets: &[String]) -> Result<Job> {
    let job = parse_job(config, sets)?;
    let here = |path: &str| relative(path).is_some() || Path::new(path).exists();
    if here(&job.dataset.path) {
        data::prepare::input_files(&job.dataset)?;
    }
    let table = &job.captions.table;
    let named = relative(table).unwrap_or_else(|| table.into());
    if job.captions.from == CaptionsFrom::Table && here(table) && !named.is_file() {
        return Err(crate::exit::BadRequest(format!("captions.table: there is no file {table}")).into());
    }
    if job.runs(Stage::Pictures) && here(&job.captions.model) {
        check_captioner(&job)?;
    }
    if has_own_prompt(&job) && here(&job.ranker.base) {
        check_base(&job)?;
    }
    Ok(job)
}

fn parse_job(config: &Path, sets: &[String]) -> Result<Job> {
    let text = std::fs::read_to_string(config)
        .map_err(|e| crate::exit::BadRequest(format!("cannot read the job file {}: {e}", config.display())))?;
    let mut job = Job::parse(&config.display().to_string(), &text, sets)?;
    // The ranker of an earlier job comes with its prompt; a template beside it must be the same.
    if has_own_prompt(&job) || (job.runs(Stage::Rank) && !job.ranker.template.is_empty()) {
        let template = template(&job.ranker.template, config)?;
        job.inline_template(template);
    }
    Ok(job)
}

/// Whether the prompt is the job's own, and not that of the job that a ranker comes from.
fn has_own_prompt(job: &Job) -> bool {
    job.runs(Stage::TrainRanker) || (job.runs(Stage::Rank) && job.ranker.from.folder().is_some())
}

/// How to start a process that decodes pictures: this program again.
pub(crate) fn decoder() -> Result<DecoderCommand> {
    let program = std::env::current_exe().context("cannot find this program to decode pictures with")?;
    Ok(DecoderCommand { program: program.into(), args: vec!["decode-pictures".into()] })
}

/// Finds what is wrong with the captioner and with the folder of pictures before anything is computed.
fn check_captioner(job: &Job) -> Result<()> {
    let model = ::coordinator::check_layout("captions.model", job.captions.model.as_ref());
    model.map_err(|e| crate::exit::BadRequest(e.to_string()))?;
    ::worker::check_captioner(job).map_err(|e| crate::exit::BadRequest(format!("captions.model: {e}")))?;
    if !job.captions.images.is_empty() {
        Store::open_existing(&job.captions.images)
            .map_err(|e| crate::exit::BadRequest(format!("captions.images: {e}")))?;
    }
    Ok(())
}

/// Finds what is wrong with the language model now, and not when the retriever has been trained.
fn check_base(job: &Job) -> Result<()> {
    let layout = ::coordinator::check_layout("ranker.base", job.ranker.base.as_ref());
    layout.map_err(|e| crate::exit::BadRequest(e.to_string()))?;
    let check = |job: &Job, of: &str| {
        ::worker::check_ranker(job).map_err(|e| crate::exit::BadRequest(format!("ranker{of}: {e}")))
    };
    let trials = job.trials(ModelSection::Ranker);
    if trials.is_empty() {
        check(job, "")?;
    }
    // Most trials have the prompt of another one.
    let mut checked: Vec<Value> = Vec::new();
    for trial in trials {
        let ranker = &trial.job.ranker;
        let keys = serde_json::json!([ranker.scoring_keys(), ranker.trainable, ranker.lora]);
        if !checked.contains(&keys) {
            check(&trial.job, &format!("[{}]", trial.label))?;
            checked.push(keys);
        }
    }
    Ok(())
}

/// The text of the prompt template: of a file, relative to where the command runs or to the job file.
fn template(name: &str, config: &Path) -> Result<String> {
    if name.is_empty() {
        return Ok(model::ranker::DEFAULT_TEMPLATE.to_owned());
    }
    if name.contains('\n') {
        return Ok(name.to_owned());
    }
    let beside = config.parent().map(|folder| folder.join(name));
    let found = [Some(Path::new(name).to_owned()), beside].into_iter().flatten().find(|path| path.is_file());
    let path = found.ok_or_else(|| {
        let missing = format!("ranker.template: there is no file {name}, neither here nor beside {}", config.display());
        crate::exit::BadRequest(missing)
    })?;
    std::fs::read_to_string(&path).with_context(|| format!("ranker.template: cannot read {}", path.display()))
}

/// The report of a finished job.
pub(crate) async fn report(store: &Store, job: &str) -> Result<Value> {
    let bytes =
        store.get(&::coordinator::report::path(job)).await.context("the job has not finished: it has no report")?;
    serde_json::from_slice(&bytes).context("the job's metrics.json is damaged")
}
