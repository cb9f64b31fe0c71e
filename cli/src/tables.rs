//! The tables that end a run: what the retriever and the ranker reached, with intervals.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

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

/// Rows: population and system; columns: metric@k.
fn ranker(report: &Value, split: &str) -> Option<Table> {
    let columns: Vec<String> = [1, 5, 10].iter().flat_map(|k| METRICS.map(|(m, _)| format!("{m}@{k}"))).collect();
    let columns: Vec<&String> = columns.iter().filter(|c| !c.ends_with("@1") || c.starts_with("recall")).collect();
    report["ranker"][split].as_object()?;
    let mut table = table();
    let header = columns.iter().map(|c| {
        let (metric, k) = c.split_once('@').unwrap_or((c, ""));
        let short = METRICS.iter().find(|(m, _)| *m == metric).map_or(metric, |(_, s)| s);
        format!("{short}@{k}")
    });
    table.set_header(["".to_owned(), "".to_owned()].into_iter().chain(header));
    for population in ["subset", "overall"] {
        for (system, name) in [("retriever_order", "retriever's order"), ("ranker", "ranker")] {
            let figures = &report[system][split][population];
            let cells = columns.iter().map(|c| cell(&figures[c.as_str()]));
            table.add_row([population.to_owned(), name.to_owned()].into_iter().chain(cells));
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

/// One sentence about the ranker, loud if it does not earn its keep.
fn verdict(report: &Value, split: &str) -> String {
    let figure = |system: &str| &report[system][split]["subset"]["ndcg@10"];
    let (ours, order) = (figure("ranker"), figure("retriever_order"));
    let of = |v: &Value, key: &str| v[key].as_f64().unwrap_or(0.0);
    let steps = report["ranker_training"]["steps"].as_u64().unwrap_or(0);
    let trained = format!("trained {steps} steps");
    if report["ranker"][split]["subset_users"].as_u64().unwrap_or(0) == 0 {
        return format!("{trained}; no user's held-out item is among the candidates, so there is nothing to compare");
    }
    if of(ours, "value") < of(order, "value") {
        return format!(
            "WARNING: {trained}; worse than the retriever's order (N@10 {:.4} against {:.4} on the subset). Do not serve \
             this ranker: train longer, start from a stronger base or try ranker.negatives = \"mixed\".",
            of(ours, "value"),
            of(order, "value")
        );
    }
    let apart =
        if of(ours, "low") > of(order, "high") { "the intervals do not overlap" } else { "the intervals overlap" };
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
