//! Where the bytes of pictures come from.

use bytes::Bytes;

use super::fetch;
use crate::Result;
use crate::artifact::Digest;
use crate::store::Store;
use crate::tables::PictureRow;

/// A folder of pictures, and what was downloaded.
#[derive(Clone, Debug)]
pub struct PictureSource {
    folder: Option<Store>,
    /// The job's own store, where downloads lie.
    store: Store,
}

impl PictureSource {
    /// The pictures of a folder or URL prefix, if one is named, and the downloads of a store.
    ///
    /// # Errors
    /// [`crate::Error::StoreUrl`] if the folder is not there.
    pub fn open(images: &str, store: &Store) -> Result<Self> {
        let folder = if images.is_empty() { None } else { Some(Store::open_existing(images)?) };
        Ok(Self { folder, store: store.clone() })
    }

    /// The folder of pictures.
    #[must_use]
    pub fn folder(&self) -> Option<&Store> {
        self.folder.as_ref()
    }

    /// The bytes of a picture; nothing if it is gone.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn read(&self, picture: &PictureRow) -> Result<Option<Bytes>> {
        let (Some(location), Some(sha256)) = (&picture.location, &picture.image_sha256) else { return Ok(None) };
        let Ok(sha256) = Digest::try_from(sha256.clone()) else { return Ok(None) };
        match &self.folder {
            Some(folder) if !is_url(location) => folder.try_get(location).await,
            _ => self.store.try_get(&fetch::picture_path(&sha256)).await,
        }
    }
}

/// Whether a location is a URL, and not a path.
#[must_use]
pub fn is_url(location: &str) -> bool {
    location.contains("://")
}
