//! The retriever's files: weights, shape, and the ids of the items that it knows.

use data::artifact::{self, ArtifactId, Digest, role, table_prefix};
use data::dataset::{Catalogue, KnownItems};
use data::job::Stage;
use data::store::Store;
use data::tables::{ItemRow, Table, read_all};
use model::retriever::LruRec;

use super::Retriever;
use crate::context::Context;
use crate::population::Population;
use crate::{Error, Result};

/// The ids of a retriever's items in the order of their numbers: a list of strings.
pub(crate) const ITEM_IDS_FILE: &str = "item_ids.json";

/// The content of [`ITEM_IDS_FILE`] for a catalogue.
pub(crate) fn item_ids(catalogue: &Catalogue) -> Vec<u8> {
    let ids: Vec<&str> = catalogue.items().iter().map(|item| item.item_id.as_str()).collect();
    serde_json::to_vec(&ids).expect("a list of strings is valid JSON")
}

/// Refuses to propose more items than there are, to whoever trains on them; a finished retriever proposes what it can.
pub(crate) fn check_candidates(cx: &Context, population: &Population) -> Result<()> {
    let (candidates, items) = (cx.job.retriever.candidates, population.catalogue.len());
    let trains = cx.job.retriever.from.is_training();
    if trains && candidates > items { Err(Error::TooManyCandidates { candidates, items }) } else { Ok(()) }
}

/// Loads the retriever that a task's artifact was planned with.
pub(crate) fn load(cx: &Context, population: &Population) -> Result<Retriever> {
    let source = Source::of(cx)?;
    let file = |name: &str| cx.wait(source.store.get(&source.path(name)));
    let whole = |items: usize| -> Result<LruRec> {
        Ok(LruRec::load(&file("model.safetensors")?, &file("config.json")?, items)?)
    };
    let catalogue = &population.catalogue;
    match source.training(cx)? {
        Some(training) if training == cx.input(Stage::Prepare, None)? => {
            let known = KnownItems::all(catalogue);
            Ok(Retriever { model: whole(known.len())?, known })
        }
        training => {
            let ids = source.ids(cx, training)?;
            let (known, chosen) = KnownItems::new(catalogue, &ids)?;
            if known.is_empty() {
                return Err(nothing_known(catalogue));
            }
            // What the catalogue lacks is not proposed, and costs nothing.
            Ok(Retriever { model: whole(ids.len())?.restricted_to(&chosen)?, known })
        }
    }
}

fn nothing_known(catalogue: &Catalogue) -> Error {
    let what = format!(
        "the retriever knows none of the {} items of this dataset: it was trained on other ids. Train one on this dataset, or \
         bring the dataset that the model of retriever.from belongs to",
        catalogue.len()
    );
    Error::Nothing { stage: Stage::Retrieve, what }
}

fn parse(bytes: &[u8]) -> Result<Vec<String>> {
    let control =
        |e: serde_json::Error| data::Error::Control { object: ITEM_IDS_FILE.to_owned(), reason: e.to_string() };
    Ok(serde_json::from_slice(bytes).map_err(control)?)
}

/// Where the files of a model lie.
struct Source {
    store: Store,
    /// The artifact, unless the model is in a folder of the user's.
    artifact: Option<ArtifactId>,
}

impl Source {
    fn of(cx: &Context) -> Result<Self> {
        if let Some(folder) = cx.job.retriever.from.folder() {
            return Ok(Self { store: Store::open_existing(folder)?, artifact: None });
        }
        let stage = Stage::TrainRetriever;
        let artifact = ArtifactId { stage, digest: cx.input(stage, None)? };
        Ok(Self { store: cx.store.clone(), artifact: Some(artifact) })
    }

    fn path(&self, name: &str) -> String {
        self.artifact.as_ref().map_or_else(|| name.to_owned(), |id| format!("{}/{name}", id.model_prefix()))
    }

    /// The ids of the model's items; `training` is the dataset that it was trained on, where that is known.
    fn ids(&self, cx: &Context, training: Option<Digest>) -> Result<Vec<String>> {
        let path = self.path(ITEM_IDS_FILE);
        match (cx.wait(self.store.try_get(&path))?, training) {
            (Some(bytes), _) => parse(&bytes),
            // Trained before the ids were kept beside the weights.
            (None, Some(prepare)) => {
                let rows: Vec<ItemRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Items, &prepare)))?;
                Ok(rows.into_iter().map(|row| row.item_id).collect())
            }
            (None, None) => Err(data::Error::NotFound { object: self.store.name(&path) }.into()),
        }
    }

    /// The prepared dataset that the model was trained on, where that is known.
    fn training(&self, cx: &Context) -> Result<Option<Digest>> {
        let Some(id) = &self.artifact else { return Ok(None) };
        let spec = cx.wait(artifact::read_spec(&cx.store, id))?;
        Ok(spec.and_then(|spec| spec.inputs.get(&role(Stage::Prepare, None)).cloned()))
    }
}
