//! What more workers bring: a model of the time of a step, checked against what a ring on this machine takes.
//!
//! Nothing in here has seen several cards: their times are worked out, and said to be.

mod link;
mod measured;
mod network;
mod shared_items;

use anyhow::Result;
use link::{ETHERNET_10G, ETHERNET_25G, INFINIBAND, Link, NVLINK};
use network::{all_reduce, ring_pass};

/// Workers of the tables.
const WORLDS: [usize; 8] = [1, 2, 4, 8, 16, 64, 256, 1024];
const LINKS: [Link; 4] = [NVLINK, INFINIBAND, ETHERNET_25G, ETHERNET_10G];
/// Steps are cut into so many slices at least.
const SLICES: usize = 8;

/// The options of `scaling`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Megabytes of the bucket that is measured.
    #[arg(long, default_value_t = 16)]
    megabytes: usize,
    /// Items of the catalogue whose steps are measured. Ten million take 13 GB a worker.
    #[arg(long, default_value_t = 1_000_000)]
    items: usize,
    /// Histories of a step that is measured, each of 50 items.
    #[arg(long, default_value_t = 8)]
    histories: usize,
    /// The most workers of a step that is measured.
    #[arg(long, default_value_t = 4)]
    workers: usize,
}

/// A training whose steps are shared out.
struct Workload {
    name: &'static str,
    /// Seconds of a step on one worker, and where that is from.
    step: f64,
    source: &'static str,
    /// Bytes of the gradients.
    bucket: usize,
}

/// The adapter of a model of 7B: rank 8 on q and v of 32 layers, batches of 16.
const ADAPTER: Workload = Workload {
    name: "adapter of a 7B ranker (16.8 MB), batch 16",
    step: 0.7,
    source: "worked out from the operations of a step at 550 TF/s",
    bucket: 4 * 4_194_304,
};

/// A retriever over ten million items, 64 wide, with batches of 128 histories of 50.
const CATALOGUE: usize = 10_000_000;
const WIDTH: usize = 64;
const ROWS: usize = 128 * 50;
const RETRIEVER: Workload = Workload {
    name: "retriever over 10 million items (2.56 GB), batch 128 x 50",
    step: 0.062,
    source: "6 operations for each of rows, items and width at 400 TF/s",
    bucket: 4 * CATALOGUE * WIDTH,
};

/// Measures a ring, then prints what the model makes of it and of cards.
pub(crate) fn run(options: &Options) -> Result<()> {
    let loopback = measured::loopback()?;
    println!("## A ring on this machine\n");
    println!(
        "One link over loopback: {:.2} GB/s, {:.0} µs a frame.\n",
        loopback.bandwidth / 1e9,
        loopback.latency * 1e6
    );
    println!("| workers | measured | model |\n|---|---|---|");
    for world in [2, 4, 8] {
        let bytes = options.megabytes << 20;
        let (found, told) = (measured::all_reduce(world, SLICES, bytes)?, all_reduce(world, SLICES, bytes, loopback));
        println!("| {world} | {:.1} ms | {:.1} ms |", found * 1e3, told * 1e3);
    }
    steps_of_shared_items(options)?;
    for workload in [&ADAPTER, &RETRIEVER] {
        println!(
            "\n## {}\n\nA step on one card: {:.0} ms ({}).\n",
            workload.name,
            workload.step * 1e3,
            workload.source
        );
        table("sum of whole gradients", |world, link| {
            workload.shared(world, all_reduce(world, slices(world), workload.bucket, link))
        });
    }
    println!();
    table("items shared out: each worker has a range of them", |world, link| {
        RETRIEVER.shared(world, of_items(world, link))
    });
    Ok(())
}

/// Measures steps of a retriever whose items are shared out.
fn steps_of_shared_items(options: &Options) -> Result<()> {
    let &Options { items, histories, workers, .. } = options;
    let whole = (items + 1) as f64 * 4.0 * (WIDTH + 1) as f64;
    println!("\n## Shared items on this machine\n");
    println!("{items} items, {histories} histories of 50, a thread for each worker.\n");
    println!("| workers | a step | said by a worker | the gradient of all items |\n|---|---|---|---|");
    for world in [1, 2, 4, 8].into_iter().filter(|world| *world <= workers) {
        let found = shared_items::step(world, items, histories)?;
        let (said, whole) = (found.said as f64 / 1e6, whole / 1e6);
        println!("| {world} | {:.2} s | {said:.2} MB | {whole:.0} MB |", found.seconds);
    }
    Ok(())
}

impl Workload {
    /// Seconds of a step that is shared out, with so many for the exchange.
    fn shared(&self, world: usize, exchange: f64) -> (f64, f64) {
        let slices = slices(world);
        let own = slices.div_ceil(world) as f64 / slices as f64;
        let step = self.step * own + exchange;
        (step, self.step / (world as f64 * step))
    }
}

/// Everybody has something to do.
fn slices(world: usize) -> usize {
    SLICES.max(world)
}

/// Seconds of the exchange where items are shared out: hidden states to everybody, two numbers of the softmax for each row, the gradients of
/// hidden states summed, and the rows of items that the histories name with their gradients. None of that knows of the size of the
/// catalogue.
fn of_items(world: usize, link: Link) -> f64 {
    let rows = 4 * ROWS * WIDTH;
    let gathers =
        ring_pass(world, rows, link) + 2.0 * ring_pass(world, 8 * ROWS, link) + ring_pass(world, 2 * rows, link);
    gathers + all_reduce(world, slices(world), rows, link)
}

fn table(what: &str, of: impl Fn(usize, Link) -> (f64, f64)) {
    print!("{what}: ms a step (share of what as many workers could do)\n\n| workers |");
    LINKS.iter().for_each(|link| print!(" {} |", link.name));
    println!("\n|---|{}", "---|".repeat(LINKS.len()));
    for world in WORLDS {
        print!("| {world} |");
        for link in LINKS {
            let (step, share) = of(world, link);
            print!(" {:.1} ({:.0} %) |", step * 1e3, 100.0 * share);
        }
        println!();
    }
}
