//! One table, from its folder to its place.

use std::collections::BTreeMap;

use data::Error;
use data::artifact::{Digest, PartRecord, SUCCESS, done_records};
use data::store::Store;
use data::tables::{part_name_index, read_summary};
use futures::{TryStreamExt, stream};

use super::{PublishedFolder, Target};

type Result<T> = data::Result<T>;

/// Parts that are in memory at a time; none is larger than [`data::artifact::MAX_PART_BYTES`].
const PARTS: usize = 4;

const WAY_OUT: &str = "remove it, or choose another place (`output.publish`; {job} and {date} keep tables apart)";

/// A table that is being copied.
pub(super) struct Copy<'a> {
    from: &'a Store,
    to: Store,
    target: Target,
    /// Parts by name.
    parts: BTreeMap<String, PartRecord>,
    /// Parts that are known to be there with the right content.
    there: Vec<String>,
    /// Whether `_SUCCESS` is there.
    complete: bool,
}

impl<'a> Copy<'a> {
    /// Looks at the place. `trusted`: the store remembers that the table was complete there, so that what has its size
    /// need not be read.
    pub(super) async fn begin(from: &'a Store, to: Store, target: Target, trusted: bool) -> Result<Self> {
        let records = done_records(from, &target.artifact).await?;
        let parts = records.into_iter().flat_map(|done| done.parts).filter(|part| part.table == target.table);
        let named = |part: PartRecord| (part.path.rsplit('/').next().unwrap_or_default().to_owned(), part);
        let parts = parts.map(named).collect();
        let mut copy = Self { from, to, target, parts, there: Vec::new(), complete: false };
        for name in copy.to.sweep_staged("").await? {
            tracing::warn!(folder = copy.to.url(), name, "removed what a killed writer left");
        }
        let listed = copy.to.list("").await?;
        copy.complete = listed.iter().any(|entry| entry.path == SUCCESS);
        for entry in listed.iter().filter(|entry| entry.path != SUCCESS) {
            match copy.parts.get(&entry.path) {
                Some(part) if part.bytes == entry.size => {
                    if trusted && copy.complete {
                        copy.there.push(entry.path.clone());
                    }
                }
                Some(_) => return Err(copy.differs(&entry.path, "it has another size than the part of this table")),
                None => return Err(copy.differs(&entry.path, "it does not belong to this table")),
            }
        }
        let lacks = |name: &&String| !listed.iter().any(|entry| entry.path == **name);
        match copy.parts.keys().find(lacks).filter(|_| copy.complete) {
            // Readers would take the parts that come one by one for the whole.
            Some(_) => Err(copy.differs(SUCCESS, "it calls a folder complete that lacks parts of this table")),
            None => Ok(copy),
        }
    }

    /// URL of the place.
    pub(super) fn folder(&self) -> &str {
        &self.target.folder
    }

    /// Copies what is missing, looks that all is there, and says so.
    pub(super) async fn finish(self) -> Result<PublishedFolder> {
        let missing = self.parts.iter().filter(|(name, _)| !self.there.contains(name));
        stream::iter(missing.map(Ok)).try_for_each_concurrent(PARTS, |(name, part)| self.part(name, part)).await?;
        if !self.complete {
            let listed = self.to.list("").await?;
            for (name, part) in &self.parts {
                if !listed.iter().any(|entry| entry.path == *name && entry.size == part.bytes) {
                    return Err(Error::PartMissing { folder: self.to.url().to_owned(), part: name.clone() });
                }
            }
            if let Some(other) = listed.iter().find(|e| e.path != SUCCESS && !self.parts.contains_key(&e.path)) {
                return Err(self.differs(&other.path, "it does not belong to this table"));
            }
            self.to.create(SUCCESS, Vec::new().into()).await?;
        }
        let Target { folder, table, split, artifact } = self.target;
        let sum = |of: fn(&PartRecord) -> u64| self.parts.values().map(of).sum();
        let (rows, bytes) = (sum(|part| part.rows), sum(|part| part.bytes));
        Ok(PublishedFolder {
            folder,
            table,
            split,
            digest: artifact.digest,
            parts: self.parts.len() as u64,
            rows,
            bytes,
        })
    }

    /// One part: what is there already must be equal.
    async fn part(&self, name: &str, part: &PartRecord) -> Result<()> {
        let there = match self.to.try_get(name).await? {
            Some(there) => there,
            None => {
                let bytes = self.from.get(&part.path).await?;
                if Digest::of_bytes(&bytes) != part.sha256 {
                    let reason =
                        "its content is not what its record says; restore it, or remove the job and run it again";
                    return Err(Error::Differs { object: self.from.name(&part.path), reason: reason.to_owned() });
                }
                match self.to.create_or_read(name, bytes).await? {
                    None => return Ok(()),
                    Some(there) => there,
                }
            }
        };
        if Digest::of_bytes(&there) == part.sha256 {
            return Ok(());
        }
        Err(self.differs(name, "it holds other rows, or those of another attempt"))
    }

    fn differs(&self, name: &str, reason: &str) -> Error {
        Error::Differs { object: self.to.name(name), reason: format!("{reason}; {WAY_OUT}") }
    }
}

/// Refuses a place where parts of another artifact lie, or what no table has.
pub(super) async fn refuse_other_table(to: &Store, target: &Target) -> Result<()> {
    let listed = to.list("").await?;
    let differs =
        |path: &str, reason: &str| Error::Differs { object: to.name(path), reason: format!("{reason}; {WAY_OUT}") };
    if let Some(other) = listed.iter().find(|e| e.path != SUCCESS && part_name_index(&e.path).is_none()) {
        return Err(differs(&other.path, "it does not belong to a table"));
    }
    let Some(part) = listed.iter().find(|entry| entry.path != SUCCESS) else { return Ok(()) };
    let summary = read_summary(&to.name(&part.path), target.table, to.get(&part.path).await?)?;
    if summary.footer.spec_digest == target.artifact.digest.as_str() {
        return Ok(());
    }
    Err(differs(&part.path, "it is a part of another table"))
}
