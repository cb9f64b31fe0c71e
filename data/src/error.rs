//! What can go wrong between a file and a table.

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed later.
    Retry,
    /// It will not succeed until somebody changes something.
    Fatal,
}

/// Why data could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A job file is wrong; all of its problems together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Job(Vec<crate::job::Problem>),
    /// A file of the user cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A dataset lacks a file.
    #[error(
        "`dataset.path` = {path}: no file with {what}; looked for {looked_for} (each also with .gz), the folder holds {}",
        list(found)
    )]
    MissingInput {
        /// `dataset.path`.
        path: String,
        /// What the file would hold.
        what: &'static str,
        /// The names that were looked for.
        looked_for: String,
        /// The files that are there.
        found: Vec<String>,
    },
    /// Several files could be the one that a dataset needs.
    #[error(
        "`dataset.path` = {path}: several files could hold the {what}: {}; leave one, or give the file itself as `dataset.path`",
        list(found)
    )]
    AmbiguousInput {
        /// `dataset.path`.
        path: String,
        /// What the file holds.
        what: &'static str,
        /// The files that fit.
        found: Vec<String>,
    },
    /// A table of the user lacks a column.
    #[error("{file} has no column `{column}` (`{key}`); its columns are {}", list(present))]
    MissingColumn {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The key of the job file that asks for it.
        key: String,
        /// The columns that are there.
        present: Vec<String>,
    },
    /// More rows were rejected than the job allows.
    #[error(
        "{rejected} of {read} rows were rejected, `limits.max_rejected` allows {limit}: {worst}; mend the input{}",
        if rejected == read { ": no row could be read" } else { " or raise the limit" }
    )]
    TooManyRejected {
        /// Rows that could not be used.
        rejected: u64,
        /// Rows that were read.
        read: u64,
        /// The limit, as in the job file.
        limit: String,
        /// The most frequent reasons with examples.
        worst: String,
    },
    /// The filter leaves no user.
    #[error("{}", nothing_left(path, counts, *per_user, *per_item, *min_rating))]
    NothingLeft {
        /// `dataset.path`.
        path: String,
        /// What was there and where it went.
        counts: Box<crate::prepare::Counts>,
        /// `dataset.min_interactions_per_user`.
        per_user: u32,
        /// `dataset.min_interactions_per_item`.
        per_item: u32,
        /// `dataset.min_rating`.
        min_rating: f64,
    },
    /// A sort or join does not fit into memory.
    #[error(
        "{step} needs more memory than `limits.memory` = {limit_bytes} bytes, even with spilling to disk: raise it ({reason})"
    )]
    Memory {
        /// What was being done.
        step: &'static str,
        /// The limit.
        limit_bytes: u64,
        /// What the engine said.
        reason: String,
    },
    /// The folder for what does not fit into memory fails.
    #[error("cannot spool to {path}: {reason}; it needs room for about the size of the input")]
    Spool {
        /// The folder or file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The query engine fails for a reason of its own.
    #[error("{step}: {source}")]
    Engine {
        /// What was being done.
        step: &'static str,
        /// What the engine said.
        source: Box<datafusion::error::DataFusionError>,
    },
    /// The rows of the items table are not in order.
    #[error("the items table is not sorted by item id: `{second}` follows `{first}`; run the prepare stage again")]
    ItemOrder {
        /// An item.
        first: String,
        /// The one behind it, which is the same or smaller.
        second: String,
    },
    /// A model has an item twice.
    #[error("the retriever's item_ids.json has `{item}` twice: it is not the file that training wrote")]
    RepeatedItem {
        /// The item.
        item: String,
    },
    /// A row names an item that the items table does not have.
    #[error(
        "user `{user}` has item `{item}`, which is not in the items table: histories and items are of different datasets"
    )]
    UnknownItem {
        /// The user.
        user: String,
        /// The item.
        item: String,
    },
    /// The catalogue has too few items that a user has not seen.
    #[error(
        "`retriever.candidates` = {candidates} needs {} items that a user has not seen, but of {catalogue} items only {unseen} are \
         left for one user: lower it to {} or less",
        candidates - 1,
        unseen + 1
    )]
    TooFewItems {
        /// `retriever.candidates`.
        candidates: u32,
        /// Items that the user has not seen.
        unseen: u32,
        /// Items in all.
        catalogue: u32,
    },
    /// A caption table has two captions for one item.
    #[error("{file}: item `{item}` has a second caption at row {row}; keep one (`captions.table`)")]
    DuplicateCaption {
        /// The table.
        file: String,
        /// The item.
        item: String,
        /// Where the second one stands.
        row: u64,
    },
    /// An entry of the hosts that may be at private addresses is not a host.
    #[error("`{entry}` in allow_hosts is not a host or host:port, for example `images.local` or `10.0.0.7:8080`")]
    AllowedHost {
        /// The entry.
        entry: String,
    },
    /// Nothing can be fetched at all.
    #[error("cannot prepare to fetch pictures: {reason}; look at the certificates of this system")]
    FetchClient {
        /// What the client said.
        reason: String,
    },
    /// Fetching pictures was stopped from outside.
    #[error("fetching pictures was stopped; the same command goes on where it was")]
    FetchStopped,
    /// The root of a store is not one that can be opened.
    #[error("cannot open the store {url}: {reason}")]
    StoreUrl {
        /// As the user wrote it.
        url: String,
        /// What is wrong with it and what is allowed.
        reason: String,
    },
    /// An object that should be there is not.
    #[error("{object} does not exist")]
    NotFound {
        /// URL of the object.
        object: String,
    },
    /// The disk, or the quota on it, is used up.
    #[error(
        "the disk is full: cannot {action} {object} ({reason}); free some space or choose another `output.root`, then run the same command again: finished shards are kept"
    )]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// URL of the object.
        object: String,
        /// What the system said.
        reason: String,
    },
    /// The store refuses this identity.
    #[error(
        "no permission to {action} {object} ({reason}); give this user or role the right to read, list and create objects there, or choose another `output.root`"
    )]
    Denied {
        /// What was being done.
        action: &'static str,
        /// URL of the object.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// The bucket or container itself is not there.
    #[error(
        "the bucket of {url} does not exist or is not visible to this identity ({reason}); create it, or correct the URL"
    )]
    NoBucket {
        /// The root of the store.
        url: String,
        /// What the store said.
        reason: String,
    },
    /// Nothing says who the caller is.
    #[error("no identity for {url}: {remedy} ({reason})")]
    NoIdentity {
        /// The root of the store.
        url: String,
        /// The variables to set.
        remedy: &'static str,
        /// Where the client has looked last, and what came of it.
        reason: String,
    },
    /// The store breaks the promise on which every commit rests.
    #[error("{url} cannot hold jobs: {reason}")]
    UnsafeStore {
        /// The root of the store.
        url: String,
        /// What it does, and what to use instead.
        reason: String,
    },
    /// The store failed in another way.
    #[error("cannot {action} {object}: {reason}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// URL of the object.
        object: String,
        /// What the store said.
        reason: String,
        /// Whether trying again can help.
        class: Class,
    },
    /// An object that never changes is there with another content.
    #[error("{object} is there already and differs: {reason}")]
    Differs {
        /// URL of the object.
        object: String,
        /// In what, and what to do.
        reason: String,
    },
    /// A shard is being put aside: a part without rows lies where the rows were to go.
    #[error("{object}: the shard was put aside before")]
    PutAside {
        /// URL of the part.
        object: String,
    },
    /// A part is larger than what one request may carry.
    #[error(
        "{object} would hold {bytes} bytes, more than the {limit} of a part; make shards smaller (`dataset.shard_users`)"
    )]
    PartTooLarge {
        /// Path of the part.
        object: String,
        /// Its size.
        bytes: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// A control object cannot be read.
    #[error("cannot read {object}: {reason}")]
    Control {
        /// URL of the object.
        object: String,
        /// Why.
        reason: String,
    },
    /// A shard that the plan does not have.
    #[error("shard {shard} is not one of the {shards} shards of this {stage} artifact")]
    NoSuchShard {
        /// Stage of the artifact.
        stage: crate::job::Stage,
        /// The shard asked for.
        shard: u32,
        /// How many the plan has.
        shards: u32,
    },
    /// An artifact was to be finished while shards are missing.
    #[error(
        "{missing} of {shards} shards of this {stage} artifact are not done yet, the first of them {first}; run the job again to finish it"
    )]
    ShardsMissing {
        /// Stage of the artifact.
        stage: crate::job::Stage,
        /// How many shards are missing.
        missing: u32,
        /// The first one.
        first: u32,
        /// How many the plan has.
        shards: u32,
    },
    /// A folder of a table without its `_SUCCESS`.
    #[error("{folder} is not a finished table: it has no `_SUCCESS`; run the job that writes it to its end")]
    Unfinished {
        /// URL of the folder.
        folder: String,
    },
    /// A finished folder lacks a part.
    #[error(
        "{folder} is finished but lacks {part}; somebody removed or renamed it: restore it, or write the table again"
    )]
    PartMissing {
        /// URL of the folder.
        folder: String,
        /// Name of the part.
        part: String,
    },
    /// A part is not a Parquet file, or a broken one.
    #[error("{file} cannot be read as a part of table `{table}`: {reason}")]
    Part {
        /// The file.
        file: String,
        /// The table it should belong to.
        table: &'static str,
        /// What the reader said.
        reason: String,
    },
    /// Reading was given up: nobody waits for the rows any more.
    #[error("reading was given up")]
    Abandoned,
    /// A part has another schema than its table.
    #[error(
        "{file}: column `{column}` of table `{table}` {problem}; this folder was written as another table or by another version"
    )]
    Column {
        /// The file.
        file: String,
        /// The table it should belong to.
        table: &'static str,
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Store { class, .. } => *class,
            Self::FetchStopped | Self::NoIdentity { .. } => Class::Retry,
            _ => Class::Fatal,
        }
    }

    /// Whether the same call may succeed later: what is worth trying again at once, and what somebody has to make room for.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.class() == Class::Retry || matches!(self, Self::DiskFull { .. } | Self::Spool { .. })
    }

    /// The same error with the name of the file in it, where only the bytes were known below.
    pub(crate) fn in_file(mut self, name: &str) -> Self {
        if let Self::Part { file, .. } | Self::Column { file, .. } = &mut self {
            name.clone_into(file);
        }
        self
    }
}

impl Error {
    /// A file of the user that cannot be read.
    pub(crate) fn read(path: &std::path::Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Read { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// A file of the spool that cannot be written.
    pub(crate) fn spool(path: &std::path::Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Spool { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// Names with commas between them, at most twenty.
fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names if names.len() > 20 => format!("{} and {} more", names[..20].join(", "), names.len() - 20),
        names => names.join(", "),
    }
}

fn nothing_left(path: &str, counts: &crate::prepare::Counts, per_user: u32, per_item: u32, min_rating: f64) -> String {
    let before = &counts.before;
    if counts.rows == 0 && counts.below_min_rating == 0 {
        return format!(
            "`dataset.path` = {path} has no row that could be read: look at the file, and whether `dataset.format` and \
             `dataset.columns` are right for it"
        );
    }
    let mut text = format!(
        "no user of `dataset.path` = {path} is left: {} users, {} items and {} interactions before the filter, 0 after it",
        before.users, before.items, before.interactions
    );
    if counts.short_users > 0 {
        text += &format!(" ({} users have fewer than three items, too few to hold two out)", counts.short_users);
    }
    if counts.below_min_rating > 0 {
        text += &format!("; {} more were below `dataset.min_rating` = {min_rating}", counts.below_min_rating);
    }
    if counts.without_title > 0 {
        text += &format!("; {} more were of items without a title", counts.without_title);
    }
    text + &format!(
        "; lower `dataset.min_interactions_per_user` = {per_user}, `dataset.min_interactions_per_item` = {per_item} or \
         `dataset.min_rating` = {min_rating}"
    )
}
