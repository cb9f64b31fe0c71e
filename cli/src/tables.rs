//! The tables that end a run: what the retriever and the ranker reached, with intervals.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use data::tables::CaptionStatus;
use serde_json::Value;

use crate::progress::grouped;

const METRICS: [(&str, &str); 3] = [("recall", "R"), ("mrr", "M"), ("ndcg", "N")];

/// Renders a job's metrics.json for people.
pub(crate) fn render(report: &Value) -> String {
    let mut text = String::new();
    let dataset = &report["dataset"];
    let _ = writeln!(
        text,
        "{} users, {} items, {} interactions; seed {}\n",
        dataset["users"], dataset["items"], dataset["interactions"], report["seed"]
    );
    if let Some(line) = captions(report) {
        let _ = writeln!(text, "{line}\n");
    }
    for line in since(report) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(lines) = unknown_items(report) {
        let _ = writeln!(text, "{lines}");
    }
    for split in ["validation", "test"] {
        if let Some(table) = retriever(report, split) {
            let _ = writeln!(
                text,
                "retriever, {split}: {} users, whole catalogue\n{table}\n",
                report["retriever"][split]["users"]
            );
        }
        if let Some(table) = ranker(report, split) {
            let form = &report["ranker"][split];
            let _ = writeln!(
                text,
                "ranker beside the retriever's order, {split}: {} users, {} of them with the held-out item among the \
                 candidates (subset)\n{table}",
                form["users"], form["subset_users"]
            );
            let _ = writeln!(text, "{}\n", verdict(report, split));
        }
    }
    text
}

/// What was copied from an earlier job, one line a stage.
fn since(report: &Value) -> Vec<String> {
    let job = report["since"]["job"].as_str().unwrap_or_default();
    let stages = report["since"].as_object().into_iter().flatten().filter(|(stage, _)| *stage != "job");
    let line = |(stage, counts): (&String, &Value)| {
        let why: Vec<String> = counts["why"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(reason, users)| format!("{reason}: {users}"))
            .collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        format!("{stage} since {job}: {} users copied, {} rescored{why}", counts["copied"], counts["rescored"])
    };
    stages.map(line).collect()
}

/// What of the histories the retriever does not know, one line a split.
fn unknown_items(report: &Value) -> Option<String> {
    let job = report["job"].as_str().unwrap_or("JOB");
    let mut text = String::new();
    for (split, unknown) in report["unknown_items"].as_object()? {
        let count = |key: &str| unknown[key].as_u64().unwrap_or(0);
        if count("items") == 0 {
            continue;
        }
        let most = unknown["most_frequent"].as_array().into_iter().flatten().take(3);
        let named: Vec<String> = most
            .map(|item| format!("{} ({} users)", item["item_id"].as_str().unwrap_or_default(), item["users"]))
            .collect();
        let more = if count("items") > named.len() as u64 { ", …" } else { "" };
        let _ = writeln!(
            text,
            "{split}: {} items are unknown to the retriever and were left out of {} users' histories: {}{more}; all of them: \
             table `rejected` in `mllm4rec outputs {job}`",
            count("items"),
            count("users_with_unknown_items"),
            named.join(", ")
        );
        if count("users_without_known_items") > 0 {
            let lost = count("users_without_known_items");
            let _ = writeln!(
                text,
                "WARNING: {split}: {lost} users have no item that the retriever knows: they get no recommendations"
            );
        }
    }
    (!text.is_empty()).then_some(text)
}

/// What became of the pictures, where a model described them.
fn captions(report: &Value) -> Option<String> {
    let counts = &report["captions"];
    counts["described_pictures"].as_u64()?;
    let of = |status: CaptionStatus| counts[status.as_str()].as_u64().unwrap_or(0);
    let all: u64 = CaptionStatus::ALL.into_iter().map(of).sum();
    let good = of(CaptionStatus::Ok);
    let lost: Vec<String> = CaptionStatus::ALL
        .into_iter()
        .filter(|&status| status != CaptionStatus::Ok && of(status) > 0)
        .map(|status| format!("{} {}", of(status), status.as_str()))
        .collect();
    if lost.is_empty() {
        return Some(format!("captions: all {all} items"));
    }
    let job = report["job"].as_str().unwrap_or("JOB");
    let loud = if good * 2 < all { "WARNING: " } else { "" };
    Some(format!("{loud}captions: {good} of {all} items ({}); see `mllm4rec captions {job}`", lost.join(", ")))
}

/// Rows: metrics; columns: k.
fn retriever(report: &Value, split: &str) -> Option<Table> {
    let figures = report["retriever"][split]["overall"].as_object()?;
    let ks = ks(figures.keys());
    let mut table = table();
    table.set_header(std::iter::once(String::new()).chain(ks.iter().map(|k| format!("@{k}"))));
    for (metric, short) in METRICS {
        let cells = ks.iter().map(|k| cell(&figures[&format!("{metric}@{k}")]));
        table.add_row(std::iter::once(short.to_owned()).chain(cells));
    }
    Some(align(table))
}

/// Rows: metric@k; columns: population and system, side by side.
fn ranker(report: &Value, split: &str) -> Option<Table> {
    report["ranker"][split].as_object()?;
    let columns: Vec<(&str, &str, &str)> = ["subset", "overall"]
        .into_iter()
        .flat_map(|p| [("retriever_order", "retriever's order", p), ("ranker", "ranker", p)])
        .collect();
    let mut table = table();
    let header = columns.iter().map(|(_, name, population)| format!("{population}\n{name}"));
    table.set_header(std::iter::once(String::new()).chain(header));
    for k in [1, 5, 10] {
        // Of a list of one, all metrics are the same.
        for (metric, short) in METRICS.into_iter().filter(|(m, _)| k > 1 || *m == "recall") {
            let name = format!("{metric}@{k}");
            let cells = columns.iter().map(|(system, _, population)| cell(&report[*system][split][*population][&name]));
            table.add_row(std::iter::once(format!("{short}@{k}")).chain(cells));
        }
    }
    Some(align(table))
}

/// N@10 on test users of the retriever's order, and of rankers with and without captions.
pub(crate) fn compare(with: &Value, without: &Value) -> Table {
    let mut table = table();
    table.set_header(["", "subset", "overall"]);
    let systems = [
        ("retriever's order", &with["retriever_order"]),
        ("ranker without captions", &without["ranker"]),
        ("ranker with captions", &with["ranker"]),
    ];
    for (name, system) in systems {
        let of = |population: &str| cell(&system["test"][population]["ndcg@10"]);
        table.add_row([name.to_owned(), of("subset"), of("overall")]);
    }
    align(table)
}

/// What a finished job has reached, and where it was published.
pub(crate) fn results(report: &Value) -> String {
    let mut text = format!("{}\n\n", render(report).trim_end());
    text.push_str(&eight_bits(report));
    for folder in report["published"].as_array().into_iter().flatten() {
        let of = |key: &str| folder[key].as_str().unwrap_or_default();
        let rows = grouped(folder["rows"].as_u64().unwrap_or(0));
        let _ = writeln!(text, "published {} ({}), {rows} rows: {}", of("table"), of("split"), of("folder"));
    }
    text
}

/// What became of scoring in eight bits, by split.
fn eight_bits(report: &Value) -> String {
    let line = |(role, found): (&String, &Value)| {
        let used = if found["used"] == true { "used" } else { "not used" };
        let why = match found["reason"].as_str() {
            Some(reason) => reason.to_owned(),
            None => format!(
                "{:.1} % of {} users kept their first item",
                100.0 * found["same_first"].as_f64().unwrap_or(0.0),
                found["users"]
            ),
        };
        format!("eight bits for {role}: {used}, {why}\n")
    };
    report["fp8"].as_object().into_iter().flatten().map(line).collect()
}

/// One sentence about the ranker, loud if it does not earn its keep.
fn verdict(report: &Value, split: &str) -> String {
    let figure = |system: &str| &report[system][split]["subset"]["ndcg@10"];
    let (ours, order) = (figure("ranker"), figure("retriever_order"));
    let of = |v: &Value, key: &str| v[key].as_f64().unwrap_or(0.0);
    let steps = report["ranker_training"]["steps"].as_u64();
    let trained = steps.map_or_else(|| "trained elsewhere".to_owned(), |steps| format!("trained {steps} steps"));
    if report["ranker"][split]["subset_users"].as_u64().unwrap_or(0) == 0 {
        return format!("{trained}; no user's held-out item is among the candidates, so there is nothing to compare");
    }
    let is_apart = of(ours, "low") > of(order, "high") || of(order, "low") > of(ours, "high");
    let apart = if is_apart { "the intervals do not overlap" } else { "the intervals overlap" };
    if of(ours, "value") < of(order, "value") {
        // As sure as these users make it.
        let way_out = if is_apart {
            "Do not serve this ranker as it is: train longer, start from a stronger ranker.base, or, unless it does, let the retriever \
             speak beside it (ranker.blend = \"fitted\")."
        } else {
            "More users would tell whether that is so; ranker.blend = \"fitted\", unless it is set, lets the retriever speak beside it."
        };
        return format!(
            "WARNING: {trained}; worse than the retriever's order (N@10 {:.4} against {:.4} on the subset; {apart}). {way_out}",
            of(ours, "value"),
            of(order, "value")
        );
    }
    format!(
        "{trained}; better than the retriever's order by {:.4} N@10 on the subset; {apart}",
        of(ours, "value") - of(order, "value")
    )
}

/// `.1426 [.12–.17]`
pub(crate) fn cell(figure: &Value) -> String {
    let (Some(value), Some(low), Some(high)) =
        (figure["value"].as_f64(), figure["low"].as_f64(), figure["high"].as_f64())
    else {
        return "–".to_owned();
    };
    format!("{}\n[{} {}]", short(value, 4), short(low, 3), short(high, 3))
}

/// Without the zero before the point, as such tables are printed.
fn short(x: f64, digits: usize) -> String {
    let text = format!("{x:.digits$}");
    text.strip_prefix('0').map_or_else(|| text.clone(), str::to_owned)
}

fn ks<'a>(names: impl Iterator<Item = &'a String>) -> Vec<u32> {
    let mut ks: Vec<u32> = names.filter_map(|n| n.split_once('@')?.1.parse().ok()).collect();
    ks.sort_unstable();
    ks.dedup();
    ks
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table
}

fn align(mut table: Table) -> Table {
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}
