//! Which rankings of before still stand.

use std::collections::HashMap;

use data::artifact::{ArtifactId, role, table_prefix};
use data::dataset::Holdout;
use data::job::{Blend, Split, Stage};
use data::tables::{CandidateRow, CaptionRow, ItemRow, RankingRow, Reader, Table, read_all};
use serde_json::Value;

use super::fates::{Fate, Reason, Since};
use super::{Before, ById, EarlierUsers, NEW_USER, OTHER_VERSION, part_of};
use crate::Result;
use crate::context::Context;
use crate::population::{Population, User};
use crate::ranking::Prompts;

/// The rankings of an earlier job by the same ranker.
///
/// A ranking follows from the prompt. It stands while the items that the prompt shows, history and candidates, are the same in
/// the same order, with the same titles and captions.
pub(crate) struct EarlierRankings {
    artifact: ArtifactId,
    users: EarlierUsers,
    rankings: Reader<RankingRow>,
    split: Split,
    /// What is new about an item, by its number; nothing about most.
    news: Vec<Option<&'static str>>,
}

impl EarlierRankings {
    /// Opens the rankings that a task may copy from.
    pub(crate) fn open(cx: &Context, population: &Population, prompts: &Prompts, split: Split) -> Result<Since<Self>> {
        let Some(before) = Before::of(cx)? else { return Ok(Since::Never) };
        if let Some(reason) = changed_for_everybody(cx, &before, split) {
            return Ok(Since::Everybody(reason));
        }
        let then = Texts::of(cx, &before)?;
        if then.with_captions() != prompts.with_captions() {
            let words =
                if then.with_captions() { "prompts show no captions any more" } else { "prompts show captions" };
            return Ok(Since::Everybody(words.into()));
        }
        let numbers = 1..=population.catalogue.len();
        let news = numbers.map(|item| then.news(population.catalogue.item(item), prompts.caption(item)));
        Ok(Since::Rows(Self {
            users: EarlierUsers::open(cx, &before)?,
            artifact: before.artifact.clone(),
            rankings: before.table(cx)?,
            split,
            news: news.collect(),
        }))
    }

    /// What they are copied from.
    pub(crate) fn artifact(&self) -> &ArtifactId {
        &self.artifact
    }

    /// What becomes of the users of a shard; `shown` is the length of the histories in prompts.
    pub(crate) fn fates(
        &mut self,
        cx: &Context,
        population: &Population,
        (users, candidates): (&[User], &[CandidateRow]),
        shown: usize,
        shard: u32,
    ) -> Result<Vec<Fate<RankingRow>>> {
        let mut before: ById<RankingRow> = ById::new();
        for (part, histories) in self.users.parts(cx, shard, users)? {
            let rankings = part_of(cx, &self.rankings, part, &histories)?;
            let rows = histories.iter().zip(rankings);
            before.extend(rows.map(|(history, row)| (history.user_id.clone(), (history.items.clone(), row))));
        }
        let fate =
            |(user, row): (&User, &CandidateRow)| self.fate(population, (user, row), before.remove(&user.id), shown);
        Ok(users.iter().zip(candidates).map(fate).collect())
    }

    fn fate(
        &self,
        population: &Population,
        (user, candidates): (&User, &CandidateRow),
        before: Option<(Vec<String>, RankingRow)>,
        shown: usize,
    ) -> Fate<RankingRow> {
        let Some((then, row)) = before else { return Fate::Rescored(NEW_USER) };
        let now = last(Holdout::of(&user.items, self.split).history, shown);
        let then = last(Holdout::of(&then, self.split).history, shown);
        let ids = now.iter().map(|item| population.catalogue.id(*item));
        if !ids.eq(then.iter().map(String::as_str)) {
            return Fate::Rescored("the history changed".into());
        }
        if candidates.items.iter().ne(in_retriever_order(&row)) {
            return Fate::Rescored("the candidates changed".into());
        }
        let candidates = candidates.items.iter().filter_map(|id| population.catalogue.index(id));
        match now.iter().copied().chain(candidates).find_map(|item| self.news[item as usize - 1]) {
            Some(news) => Fate::Rescored(news.into()),
            None => Fate::Copied(row),
        }
    }
}

fn changed_for_everybody(cx: &Context, before: &Before, split: Split) -> Option<Reason> {
    let (then, now) = (&before.spec, &cx.spec);
    // Those that differ from user to user. In a blend the retriever's scores count, not only its order.
    let mut apart = vec![role(Stage::Prepare, None), role(Stage::Caption, None)];
    if cx.job.ranker.blend == Blend::None {
        apart.push(role(Stage::Retrieve, Some(split)));
    }
    if then.format_version != now.format_version {
        Some(OTHER_VERSION)
    } else if cx.job.ranker.blend != Blend::None && !before.has_inputs_of(now, &apart) {
        Some("the ranker, or the retriever that it is blended with, changed".into())
    } else if !before.has_inputs_of(now, &apart) {
        Some("the ranker changed".into())
    } else if let Some(key) = changed_key(&then.config["ordering"], &now.config["ordering"]) {
        Some(format!("ranker.{key} changed").into())
    } else {
        (then.config != now.config).then_some("the prompt changed".into())
    }
}

/// A key of how a ranker is asked, or of what is made of its answers, that one has otherwise than the other.
fn changed_key(then: &Value, now: &Value) -> Option<String> {
    let keys = [then, now].into_iter().filter_map(Value::as_object).flat_map(|settings| settings.keys());
    keys.into_iter().find(|key| then.get(key) != now.get(key)).cloned()
}

/// The candidates of a ranking as the retriever ordered them.
fn in_retriever_order(row: &RankingRow) -> impl Iterator<Item = &String> {
    let mut order: Vec<(u32, &String)> = row.retriever_ranks.iter().copied().zip(&row.items).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, item)| item)
}

fn last<T>(items: &[T], n: usize) -> &[T] {
    &items[items.len().saturating_sub(n)..]
}

/// What items were called, and what their pictures showed.
struct Texts {
    titles: HashMap<String, String>,
    captions: HashMap<String, String>,
}

impl Texts {
    fn of(cx: &Context, before: &Before) -> Result<Self> {
        let items = table_prefix(Table::Items, before.input(Stage::Prepare)?);
        let captions = table_prefix(Table::Captions, before.input(Stage::Caption)?);
        let items: Vec<ItemRow> = cx.wait(read_all(&cx.store, &items))?;
        let captions: Vec<CaptionRow> = cx.wait(read_all(&cx.store, &captions))?;
        let titles: HashMap<String, String> = items.into_iter().map(|row| (row.item_id, row.title)).collect();
        let described = captions.into_iter().filter(|row| titles.contains_key(&row.item_id));
        let captions = described.map(|row| (row.item_id, row.caption)).collect();
        Ok(Self { titles, captions })
    }

    fn with_captions(&self) -> bool {
        self.captions.values().any(|caption| !caption.is_empty())
    }

    fn news(&self, item: &ItemRow, caption: &str) -> Option<&'static str> {
        let title = self.titles.get(&item.item_id);
        if title != Some(&item.title) {
            return Some(if title.is_none() { "an item is new" } else { "an item's title changed" });
        }
        let then = self.captions.get(&item.item_id).map_or("", String::as_str);
        (then != caption).then_some("an item's caption changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_candidates_comes_back() {
        let row = RankingRow {
            user_id: "u".to_owned(),
            split: Split::All,
            items: ["c", "a", "b"].map(str::to_owned).into(),
            scores: vec![3.0, 2.0, 1.0],
            probabilities: vec![0.6, 0.3, 0.1],
            retriever_ranks: vec![3, 1, 2],
        };
        assert!(in_retriever_order(&row).eq(["a", "b", "c"].map(str::to_owned).iter()));
    }

    #[test]
    fn a_new_title_is_told_before_a_new_caption() {
        let text = |id: &str, text: &str| (id.to_owned(), text.to_owned());
        let texts = Texts {
            titles: [text("1", "A hat"), text("2", "A coat")].into(),
            captions: [text("1", "a red hat")].into(),
        };
        let item = |id: &str, title: &str| ItemRow {
            item_id: id.to_owned(),
            title: title.to_owned(),
            image: None,
            attributes: "{}".to_owned(),
        };
        assert!(texts.with_captions());
        assert_eq!(texts.news(&item("1", "A hat"), "a red hat"), None);
        assert_eq!(texts.news(&item("2", "A coat"), ""), None);
        assert_eq!(texts.news(&item("1", "A cap"), "a blue hat"), Some("an item's title changed"));
        assert_eq!(texts.news(&item("2", "A coat"), "a blue coat"), Some("an item's caption changed"));
        assert_eq!(texts.news(&item("3", "A tie"), ""), Some("an item is new"));
    }
}
