//! From spooled rows to the interactions that stay: titles, one interaction per user and item, k-core.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{count, min, sum};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, cast};
use datafusion::prelude::{DataFrame, Expr, JoinType, col, lit, when};
use futures::StreamExt;

use super::counts::{Counts, Population};
use super::engine::Engine;
use super::formats::MetadataRule;
use super::spool::Unit;

/// Users with fewer items have nothing to train on once two are held out.
pub(super) const MIN_ITEMS_PER_USER: u32 = 3;

type Plan<T> = Result<T, DataFusionError>;

/// The thresholds of the k-core.
#[derive(Clone, Copy, Debug)]
pub(super) struct KCore {
    pub(super) per_user: u32,
    pub(super) per_item: u32,
}

/// A row of the metadata that repeats an item.
#[derive(Debug)]
pub(super) struct Duplicate {
    pub(super) file: String,
    pub(super) line: u64,
}

/// Item metadata, one row per item: `id`, `title`, `image`, `attributes`; and the rows that were one too many.
pub(super) async fn one_row_per_item(engine: &Engine, rule: MetadataRule) -> Plan<(DataFrame, Vec<Duplicate>)> {
    let rows = engine.open("metadata").await?;
    if !rule.one_row_per_item {
        let smallest = ["title", "image", "attributes"].map(|c| min(col(c)).alias(c));
        let (items, _) = engine.spool(rows.aggregate(vec![col("id")], smallest.to_vec())?, "items").await?;
        return Ok((items, Vec::new()));
    }
    let nth = row_number().partition_by(vec![col("id")]).order_by(vec![col("position").sort(true, false)]).build()?;
    let (numbered, _) = engine.spool(rows.window(vec![nth.alias("nth")])?, "numbered").await?;
    let first = numbered.clone().filter(col("nth").eq(lit(1_u64)))?;
    let items = first.select_columns(&["id", "title", "image", "attributes"])?;
    let again = numbered.filter(col("nth").gt(lit(1_u64)))?.select_columns(&["file", "line"])?;
    Ok((items, duplicates(again).await?))
}

async fn duplicates(rows: DataFrame) -> Plan<Vec<Duplicate>> {
    let mut found = Vec::new();
    let mut batches = rows.execute_stream().await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let (files, lines) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let line = u64::try_from(lines.value(row)).unwrap_or(0);
            found.push(Duplicate { file: files.value(row).to_owned(), line });
        }
    }
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(found)
}

/// The distinct interactions of items that have a title, where one is required: `user`, `item`, `time` in microseconds.
///
/// Of several interactions of a user with the same item the earliest stays. A recommendation excludes what the user has seen,
/// so a repetition could never be predicted; as a held-out item it would be a certain miss.
pub(super) async fn distinct_interactions(
    engine: &Engine,
    items: Option<&DataFrame>,
    unit: Unit,
    counts: &mut Counts,
) -> Plan<DataFrame> {
    let rows = engine.open("interactions").await?;
    let rows = rows.select(vec![col("user"), col("item"), micros(unit)?.alias("time")])?;
    let rows = match items {
        None => rows,
        Some(items) => {
            let titled = items.clone().filter(col("title").is_not_null())?.select(vec![col("id").alias("titled")])?;
            titled.join(rows, JoinType::RightSemi, &["titled"], &["item"], None)?
        }
    };
    let times = vec![min(col("time")).alias("time"), count(lit(1)).alias("times")];
    let (distinct, kept) = engine.spool(rows.aggregate(vec![col("user"), col("item")], times)?, "distinct").await?;
    let total = distinct.clone().aggregate(vec![], vec![sum(col("times")).alias("total")])?;
    let total = single_number(total).await?;
    counts.without_title = counts.rows - total;
    counts.duplicates = total - kept;
    distinct.select_columns(&["user", "item", "time"])
}

fn micros(unit: Unit) -> Plan<Expr> {
    let number = match unit {
        Unit::Multiply(factor) => col("time") * lit(factor),
        Unit::Divide(divisor) => col("time") / lit(divisor),
    };
    when(col("open_unit"), number).otherwise(col("time"))
}

/// Drops users and items with too few interactions until none is left, the unique largest set with that property.
///
/// Then the same with users of at least three items, so that every user who stays can be split. Both kinds of drops are
/// counted.
pub(super) async fn k_core(engine: &Engine, rows: DataFrame, core: KCore, counts: &mut Counts) -> Plan<DataFrame> {
    counts.before = population(&rows).await?;
    let mut filter = Filter { engine, step: 0, rows };
    filter.reach_fixed_point(core).await?;
    if core.per_user < MIN_ITEMS_PER_USER {
        counts.short_users = filter.short_users().await?;
        filter.reach_fixed_point(KCore { per_user: MIN_ITEMS_PER_USER, ..core }).await?;
    }
    let after = population(&filter.rows).await?;
    counts.users = after.users;
    counts.items = after.items;
    counts.interactions = after.interactions;
    Ok(filter.rows)
}

/// The iteration of the k-core; every step spools what it leaves, so that plans do not grow.
struct Filter<'a> {
    engine: &'a Engine,
    step: u32,
    rows: DataFrame,
}

impl Filter<'_> {
    async fn reach_fixed_point(&mut self, core: KCore) -> Plan<()> {
        loop {
            let (items, rare_items) = self.rare("item", core.per_item).await?;
            let (users, rare_users) = self.rare("user", core.per_user).await?;
            self.step += 1;
            if rare_items == 0 && rare_users == 0 {
                return Ok(());
            }
            let rows = self.rows.clone();
            let rows = items.join(rows, JoinType::RightAnti, &["rare"], &["item"], None)?;
            let rows = users.join(rows, JoinType::RightAnti, &["rare"], &["user"], None)?;
            let (rows, left) = self.engine.spool(rows, &format!("core-{}", self.step)).await?;
            let last = self.step - 1;
            for name in ["core", "rare-item", "rare-user"] {
                self.engine.remove(&format!("{name}-{last}"));
            }
            tracing::debug!(step = self.step, rare_items, rare_users, left, "k-core step");
            self.rows = rows;
        }
    }

    /// Users with fewer than three items.
    async fn short_users(&self) -> Plan<u64> {
        let grouped = self.rows.clone().aggregate(vec![col("user")], vec![count(lit(1)).alias("n")])?;
        let short = grouped.filter(col("n").lt(lit(i64::from(MIN_ITEMS_PER_USER))))?;
        Ok(short.count().await? as u64)
    }

    /// The users or items with fewer than `least` interactions, and how many they are.
    async fn rare(&self, column: &str, least: u32) -> Plan<(DataFrame, u64)> {
        let grouped = self.rows.clone().aggregate(vec![col(column)], vec![count(lit(1)).alias("n")])?;
        let rare = grouped.filter(col("n").lt(lit(i64::from(least))))?.select(vec![col(column).alias("rare")])?;
        self.engine.spool(rare, &format!("rare-{column}-{}", self.step)).await
    }
}

async fn population(rows: &DataFrame) -> Plan<Population> {
    let distinct = |column: &str| rows.clone().select(vec![col(column)])?.distinct();
    let number = |n: usize| n as u64;
    Ok(Population {
        users: number(distinct("user")?.count().await?),
        items: number(distinct("item")?.count().await?),
        interactions: number(rows.clone().count().await?),
    })
}

/// The items of the interactions with what is known about them, in byte order of their ids.
pub(super) fn items_of(rows: &DataFrame, metadata: Option<DataFrame>) -> Plan<DataFrame> {
    let items = rows.clone().select(vec![col("item")])?.distinct()?;
    let unknown = || cast(lit(datafusion::common::ScalarValue::Utf8(None)), DataType::Utf8);
    let items = match metadata {
        Some(metadata) => items.join(metadata, JoinType::Left, &["item"], &["id"], None)?,
        None => items.select(vec![
            col("item"),
            unknown().alias("title"),
            unknown().alias("image"),
            unknown().alias("attributes"),
        ])?,
    };
    items.select_columns(&["item", "title", "image", "attributes"])?.sort(vec![col("item").sort(true, false)])
}

/// All interactions user by user, each user's in order: by time, then by item id.
pub(super) fn in_order(rows: DataFrame) -> Plan<DataFrame> {
    rows.select_columns(&["user", "item", "time"])?.sort(vec![
        col("user").sort(true, false),
        col("time").sort(true, false),
        col("item").sort(true, false),
    ])
}

/// The number in a relation of one row and one column; nothing at all sums to 0.
async fn single_number(plan: DataFrame) -> Plan<u64> {
    let batches = plan.collect().await?;
    let value = batches.iter().find(|b| b.num_rows() > 0).map(|b| b.column(0).as_primitive::<Int64Type>().clone());
    Ok(value.filter(|v| v.is_valid(0)).map_or(0, |v| u64::try_from(v.value(0)).unwrap_or(0)))
}
