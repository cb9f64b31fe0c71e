//! Who leads: a sequence of numbered objects, each created once.

use data::store::{Created, Store};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::{Error, Result};

const PREFIX: &str = "_control/v1/leader";

/// The right to decide, until somebody takes a higher term.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: u64,
}

impl Leadership {
    /// Takes the next free term. No other claim, of whomever, may have the same `holder`: it could not be told apart.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn take(store: &Store, holder: &str) -> Result<Self> {
        loop {
            let term = highest(store).await? + 1;
            let record = json!({"term": term, "holder": holder, "build": env!("CARGO_PKG_VERSION")});
            if store.create(&path(term), record.to_string().into()).await? == Created::New {
                return Ok(Self { term });
            }
        }
    }

    /// Fails if somebody else has taken a higher term.
    ///
    /// # Errors
    /// [`Error::Deposed`]; those of the store.
    pub async fn check(&self, store: &Store) -> Result<()> {
        let newer = highest(store).await?;
        if newer > self.term { Err(Error::Deposed { own: self.term, newer }) } else { Ok(()) }
    }

    /// A claim that tests do not write down.
    #[cfg(test)]
    pub(crate) const fn of_term(term: u64) -> Self {
        Self { term }
    }

    /// The term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }
}

/// Whoever looks beside the loop who leads: a slow store must not make workers look silent.
pub(crate) struct Lookout {
    store: Store,
    leadership: Leadership,
    depose: mpsc::Sender<Error>,
    looking: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Tells `depose` when somebody else leads.
    pub(crate) fn new(store: Store, leadership: Leadership, depose: mpsc::Sender<Error>) -> Self {
        Self { store, leadership, depose, looking: None }
    }

    /// Looks, unless the store has not answered yet the last time.
    pub(crate) fn look(&mut self) {
        if self.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            return;
        }
        let (store, leadership, depose) = (self.store.clone(), self.leadership.clone(), self.depose.clone());
        self.looking = Some(tokio::spawn(async move {
            match leadership.check(&store).await {
                Err(deposed @ Error::Deposed { .. }) => drop(depose.send(deposed).await),
                Err(e) => warn!(error = %e, "cannot check the leadership, will try again"),
                Ok(()) => {}
            }
        }));
    }
}

/// Whether a coordinator has ever led the root of a store.
///
/// # Errors
/// Those of the store.
pub async fn was_ever_led(store: &Store) -> Result<bool> {
    Ok(highest(store).await? > 0)
}

async fn highest(store: &Store) -> Result<u64> {
    let entries = store.list(PREFIX).await?;
    let terms = entries.iter().filter_map(|e| e.path.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok());
    Ok(terms.max().unwrap_or(0))
}

fn path(term: u64) -> String {
    format!("{PREFIX}/{term:020}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixtures::Mortal;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_asked_once() {
        let root = Mortal::default();
        let store = root.store("s3://shop");
        let leadership = Leadership::take(&store, "0.0.0.0:7070 a").await.unwrap();
        let (depose, mut deposed) = mpsc::channel(1);
        let mut lookout = Lookout::new(store.clone(), leadership, depose.clone());
        root.stall();
        let before = root.listings();
        for _ in 0..5 {
            lookout.look();
            tokio::task::yield_now().await;
        }
        assert_eq!(root.listings() - before, 1);

        let root = Mortal::default();
        let store = root.store("s3://shop");
        let first = Leadership::take(&store, "0.0.0.0:7070 a").await.unwrap();
        let mut lookout = Lookout::new(store.clone(), first, depose);
        lookout.look();
        lookout.looking.take().unwrap().await.unwrap();
        Leadership::take(&store, "0.0.0.0:7070 b").await.unwrap();
        lookout.look();
        assert!(matches!(deposed.recv().await, Some(Error::Deposed { own: 1, newer: 2 })));
    }

    #[tokio::test]
    async fn every_claim_gets_a_term_of_its_own() {
        let folder = std::env::temp_dir().join(format!("mllm4rec-leadership-{}", std::process::id()));
        let store = Store::open(folder.to_str().unwrap()).unwrap();
        let first = Leadership::take(&store, "0.0.0.0:7070 a").await.unwrap();
        let second = Leadership::take(&store, "0.0.0.0:7070 b").await.unwrap();
        assert_eq!((first.term(), second.term()), (1, 2));
        assert!(matches!(first.check(&store).await, Err(Error::Deposed { own: 1, newer: 2 })));
        assert!(second.check(&store).await.is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
