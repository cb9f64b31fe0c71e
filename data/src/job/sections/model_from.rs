//! `retriever.from` and `ranker.from`: whose training a model is of.

use crate::job::reader::Section;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFrom {
    /// This job trains it.
    Train,
    /// An earlier job under the same root has trained it.
    Job(String),
    /// It lies in a folder, or below a URL.
    Folder(String),
}

impl ModelFrom {
    /// Reads `from`. `free` are the keys that may stand beside a folder: all others are settings of a training that does not
    /// take place, or of a model that has its own.
    pub(super) fn read(s: &mut Section<'_>, free: &[&str]) -> Self {
        let text: String = s.get("from", "train".to_owned());
        let from = match (text.as_str(), earlier_job(&text)) {
            ("train", _) => return Self::Train,
            (_, Some("")) | ("", _) => {
                s.report("from", "names nothing, allowed are \"train\", \"job:<id>\" and the folder of a model");
                return Self::Train;
            }
            (_, Some(job)) => return Self::Job(job.to_owned()),
            _ => Self::Folder(text.clone()),
        };
        for key in s.keys().filter(|key| *key != "from" && !free.contains(key)) {
            s.report(key, format!("has no effect on the finished model in {text}: leave it out"));
        }
        from
    }

    /// Whether this job trains the model.
    #[must_use]
    pub fn is_training(&self) -> bool {
        *self == Self::Train
    }

    /// The earlier job, if it is from one.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        if let Self::Job(job) = self { Some(job) } else { None }
    }

    /// The folder or URL, if it is in one.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        if let Self::Folder(folder) = self { Some(folder) } else { None }
    }
}

/// The id in `job:<id>`.
pub(in crate::job) fn earlier_job(text: &str) -> Option<&str> {
    text.strip_prefix("job:").map(str::trim)
}
