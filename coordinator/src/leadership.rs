//! Who leads: a sequence of numbered objects, each created once.

use data::store::{Created, Store};
use serde_json::json;

use crate::{Error, Result};

const PREFIX: &str = "_control/v1/leader";

/// The right to decide, until somebody takes a higher term.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    term: u64,
}

impl Leadership {
    /// Takes the next free term.
    pub(crate) async fn take(store: &Store, holder: &str) -> Result<Self> {
        loop {
            let term = highest(store).await? + 1;
            let record = json!({"term": term, "holder": holder, "build": env!("CARGO_PKG_VERSION")});
            if store.create(&path(term), record.to_string().into()).await? == Created::New {
                return Ok(Self { term });
            }
        }
    }

    /// Fails if somebody else has taken a higher term.
    pub(crate) async fn check(&self, store: &Store) -> Result<()> {
        let newer = highest(store).await?;
        if newer > self.term { Err(Error::Deposed { own: self.term, newer }) } else { Ok(()) }
    }

    /// The term.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }
}

async fn highest(store: &Store) -> Result<u64> {
    let entries = store.list(PREFIX).await?;
    let terms = entries.iter().filter_map(|e| e.path.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok());
    Ok(terms.max().unwrap_or(0))
}

fn path(term: u64) -> String {
    format!("{PREFIX}/{term:020}.json")
}
