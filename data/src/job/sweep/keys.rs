//! Which keys a sweep may name.

use serde_json::Value;

use crate::job::{Job, ModelSection, Negatives, nearest};

/// Keys of models that cannot be swept, and why.
const REFUSED: [(&str, &str); 12] = [
    ("retriever.from", "says whose model it is, and a sweep trains: leave it out"),
    ("retriever.candidates", "changes nothing that the retriever learns: submit one job for each value"),
    ("retriever.slices", "cuts the work of a step and is no setting of learning: set it in [retriever]"),
    ("retriever.share_items_from", "cuts the work of a step and is no setting of learning: set it in [retriever]"),
    (
        "retriever.validation_excludes_history",
        "changes what trials are measured by, so that they could not be compared",
    ),
    ("ranker.from", "says whose model it is, and a sweep trains: leave it out"),
    ("ranker.base", "is the same for all trials: submit one job for each checkpoint"),
    ("ranker.template", "is the same for all trials: submit one job for each template"),
    ("ranker.slices", "cuts the work of a step and is no setting of learning: set it in [ranker]"),
    ("ranker.micro_batch_tokens", "shapes the work and changes nothing that the ranker learns: set it in [ranker]"),
    ("ranker.require_lift", "judges what is trained and changes nothing that is learnt: leave it out"),
    ("ranker.lora", "is a section: name one of its keys, such as ranker.lora.rank"),
];

/// Keys that decide which prefixes the ranker learns from.
const ORDER: [&str; 3] = ["ranker.batch_size", "ranker.max_epochs", "ranker.max_steps"];

/// The model that a key is a setting of, or why the key cannot be swept in this job.
pub(super) fn section_of(key: &str, job: &Job) -> Result<ModelSection, String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        return Err((*why).to_owned());
    }
    let all: Vec<(String, ModelSection)> = ModelSection::ALL.into_iter().flat_map(|s| sweepable(s, job)).collect();
    let Some((_, section)) = all.iter().find(|(known, _)| known == key) else {
        let near = nearest(key, all.iter().map(|(known, _)| known.as_str()));
        return Err(near.map_or_else(
            || "is not a setting of training: a sweep names keys of [retriever] and [ranker] in full".to_owned(),
            |near| format!("unknown key; did you mean `{near}`?"),
        ));
    };
    if !job.runs(section.training()) {
        return Err(format!("sweeps a training, but `{}` is not in `stages`", section.training()));
    }
    Ok(*section)
}

/// Whether the candidates of training prefixes, which all trials share, would have to be others for each trial.
pub(super) fn divides_prefixes(key: &str, negatives_of_trials: impl IntoIterator<Item = Negatives>) -> bool {
    ORDER.contains(&key) && negatives_of_trials.into_iter().any(|negatives| negatives != Negatives::Random)
}

/// The full names of the keys that decide over a model.
fn sweepable(section: ModelSection, job: &Job) -> Vec<(String, ModelSection)> {
    let mut names = Vec::new();
    leaves(section.name(), &section.settings(job), &mut names);
    names.retain(|name| REFUSED.iter().all(|(refused, _)| refused != name));
    names.into_iter().map(|name| (name, section)).collect()
}

fn leaves(path: &str, value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, names)),
        _ => names.push(path.to_owned()),
    }
}
