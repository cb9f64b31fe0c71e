//! `mllm4rec adapter inspect`: what an adapter changes, and how much.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::json;

use super::read;
use crate::args::AdapterInspect;
use crate::exit;
use crate::progress::grouped;
use crate::terminal::print;

/// The updates of one projection over all layers.
#[derive(Default)]
struct Row {
    layers: usize,
    shape: [usize; 2],
    parameters: usize,
    norms: Vec<f64>,
}

impl Row {
    fn mean(&self) -> f64 {
        self.norms.iter().sum::<f64>() / self.norms.len().max(1) as f64
    }

    fn largest(&self) -> f64 {
        self.norms.iter().copied().fold(0.0, f64::max)
    }
}

/// Prints settings and norms.
pub(super) async fn run(args: AdapterInspect) -> Result<u8> {
    let found = read(&args.which, &args.reach).await?;
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for pair in found.adapter.pairs() {
        let row = rows.entry(pair.projection).or_default();
        row.layers += 1;
        row.shape = [pair.b.rows(), pair.a.cols()];
        row.parameters += pair.a.len() + pair.b.len();
        row.norms.push(pair.norm()?);
    }
    let (options, base) = (&found.adapter.options, &found.adapter.base);
    let parameters = found.adapter.factors().elements() as u64;
    if args.json {
        let rows = rows.iter().map(|(projection, row)| {
            json!({
                "projection": projection.name(), "layers": row.layers, "shape": row.shape, "parameters": row.parameters,
                "update_norm": {"mean": row.mean(), "max": row.largest()},
            })
        });
        print(format_args!(
            "{:#}",
            json!({
                "adapter": found.place, "base": base, "rank": options.rank, "alpha": options.alpha,
                "dropout": options.dropout, "parameters": parameters, "projections": rows.collect::<Vec<_>>(),
            })
        ));
        return Ok(exit::DONE);
    }
    print(format_args!("{}\nbase {base}", found.place));
    print(format_args!(
        "rank {}, alpha {}, dropout {}, {} parameters\n",
        options.rank,
        options.alpha,
        options.dropout,
        grouped(parameters)
    ));
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["projection", "layers", "weight", "parameters", "|update|, mean", "largest"]);
    for (projection, row) in rows {
        let [outputs, inputs] = row.shape;
        table.add_row([
            projection.name().to_owned(),
            row.layers.to_string(),
            format!("{outputs} × {inputs}"),
            grouped(row.parameters as u64),
            format!("{:.5}", row.mean()),
            format!("{:.5}", row.largest()),
        ]);
    }
    print(table);
    Ok(exit::DONE)
}
