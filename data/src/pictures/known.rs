//! What was said about pictures before: one small object for every picture and model.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::artifact::Digest;
use crate::store::Store;

/// Objects that are read or written at a time.
const AT_ONCE: usize = 32;

/// What became of a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Described {
    /// Its caption.
    Caption(String),
    /// Why it cannot be decoded.
    Undecodable(String),
    /// Why it is too large to be decoded.
    TooLarge(String),
}

/// The captions of one model, by the hash of the picture. Any job below the same root reads and adds to them.
#[derive(Clone, Debug)]
pub struct KnownCaptions {
    store: Store,
    folder: String,
}

impl KnownCaptions {
    /// The captions of a model; its digest covers all that can change a caption.
    #[must_use]
    pub fn of(store: &Store, model: &Digest) -> Self {
        Self { store: store.clone(), folder: format!("_control/v1/captions/{model}") }
    }

    /// What is known of some pictures.
    ///
    /// # Errors
    /// The store's own failures. An object that cannot be understood counts as not there.
    pub async fn find(&self, pictures: &[String]) -> Result<HashMap<String, Described>> {
        let look = |sha256: &String| {
            let (this, sha256) = (self.clone(), sha256.clone());
            async move {
                let bytes = this.store.try_get(&this.path(&sha256)).await?;
                let known = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                Ok::<_, crate::Error>(known.map(|known| (sha256, known)))
            }
        };
        let found = stream::iter(pictures.iter().map(look)).buffer_unordered(AT_ONCE);
        found.try_filter_map(|known| async { Ok(known) }).try_collect().await
    }

    /// Adds what is new. Whoever is first is believed, for the same picture and model give the same caption; but not an
    /// object that cannot be understood, which is replaced.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn remember(&self, new: &[(String, Described)]) -> Result<()> {
        let write = |(sha256, described): &(String, Described)| {
            let (this, path) = (self.clone(), self.path(sha256));
            let bytes = Bytes::from(serde_json::to_vec(described).expect("strings are JSON"));
            async move {
                match this.store.create_or_read(&path, bytes.clone()).await? {
                    Some(there) if serde_json::from_slice::<Described>(&there).is_err() => {
                        this.store.put(&path, bytes).await
                    }
                    _ => Ok(()),
                }
            }
        };
        stream::iter(new.iter().map(write)).buffer_unordered(AT_ONCE).try_collect().await
    }

    fn path(&self, sha256: &str) -> String {
        format!("{}/{}/{sha256}.json", self.folder, sha256.get(..2).unwrap_or("00"))
    }
}
