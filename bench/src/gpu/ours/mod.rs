//! Our side, as a contestant.

mod attention;
mod captions;
mod dense;
mod fp8;
mod nf4;
mod ranker;
mod reference;
mod retriever;
mod rows;
mod scan;
mod top;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use kernels::{Device, Error, Tensor};

use super::Place;
use super::case::Case;
use super::outcome::Outcome;
use super::side::{Answer, Order};
use crate::contest::serve;

/// Copies of what is read in turn take at least this much: a cache of 60 MB holds none of it until it is read again.
const ROTATED_BYTES: usize = 160 << 20;

/// A case with its inputs on the device.
trait Ready: Send {
    /// Does it once. `turn` counts the repetitions: who rotates takes another copy for each.
    fn run(&mut self, turn: usize) -> Result<()>;

    /// Does it once and says how far the result is from a reference, where that is cheap to tell.
    fn error(&mut self) -> Result<Option<f64>>;

    /// Does it once and gives what comes out, where others compute the same.
    fn outcome(&mut self) -> Result<Option<Outcome>> {
        Ok(None)
    }

    /// Gives back what the next case may need too.
    fn keep(self: Box<Self>) -> Option<ranker::Loaded> {
        None
    }
}

/// What is on the device between two commands.
#[derive(Default)]
struct Held {
    ready: Option<Box<dyn Ready>>,
    /// A large network is loaded once for all cases that use it.
    ranker: Option<ranker::Loaded>,
}

impl Held {
    /// Ends a case.
    fn clear(&mut self) {
        if let Some(ready) = self.ready.take() {
            self.ranker = ready.keep();
        }
    }
}

/// Answers commands until standard input ends.
pub(crate) fn contestant(place: Place) -> Result<()> {
    // What cannot be opened is told with every answer: this side ends no sooner than it is told to.
    let device = open(place);
    let mut held = Held::default();
    serve(|order: Order| {
        let device = match &device {
            Ok(device) => device,
            Err(e) => return Ok(Answer { failed: Some(format!("{e:#}")), about: about(), ..Answer::default() }),
        };
        let answer = device.run(|| answer(&order, device, place, &mut held));
        Ok(answer.unwrap_or_else(|e| refuse(&e, device)))
    })
}

fn open(place: Place) -> Result<Device> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(match place {
        Place::Cuda => Device::cuda(0, threads)?,
        Place::Emulated => Device::emulated()?,
    })
}

fn answer(order: &Order, device: &Device, place: Place, held: &mut Held) -> Result<Answer> {
    match order {
        Order::About => {
            let mut about = about();
            about.insert("device".to_owned(), device.name());
            Ok(Answer { about, ..Answer::default() })
        }
        Order::Prepare { case, .. } => {
            held.clear();
            let mut prepared = prepare(case, device, place, held.ranker.take())?;
            let (error, outcome) = (prepared.error()?, prepared.outcome()?);
            device.wait()?;
            held.ready = Some(prepared);
            Ok(Answer { error, outcome, ..Answer::default() })
        }
        Order::Time { repeats, .. } => {
            let ready = held.ready.as_mut().context("no case is prepared")?;
            ready.run(0)?;
            device.wait()?;
            let started = Instant::now();
            (1..=*repeats).try_for_each(|turn| ready.run(turn))?;
            device.wait()?;
            Ok(Answer { milliseconds: started.elapsed().as_secs_f64() * 1e3 / *repeats as f64, ..Answer::default() })
        }
        Order::Release => {
            held.clear();
            device.wait()?;
            Ok(Answer::default())
        }
    }
}

/// An error as an answer: an operation that has no device side yet is told from one that went wrong.
fn refuse(error: &anyhow::Error, device: &Device) -> Answer {
    let lost = device.wait().is_err();
    if !lost && error.chain().any(is_absence) {
        return Answer { absent: Some(format!("not on a device yet: {error:#}")), ..Answer::default() };
    }
    Answer { failed: Some(format!("{error:#}")), lost, ..Answer::default() }
}

/// Whether an error says that an operation works on the host alone.
fn is_absence(error: &(dyn std::error::Error + 'static)) -> bool {
    let kernel = match error.downcast_ref::<model::Error>() {
        Some(model::Error::Kernel(inner)) => Some(inner),
        _ => error.downcast_ref::<Error>(),
    };
    matches!(kernel, Some(Error::Place { .. }))
}

fn prepare(case: &Case, device: &Device, place: Place, kept: Option<ranker::Loaded>) -> Result<Box<dyn Ready>> {
    Ok(match case {
        Case::Copy { bytes } => Box::new(dense::Copy::new(*bytes, device)?),
        Case::Product { size } | Case::Sustained { size, .. } => Box::new(dense::Product::new(*size, device)?),
        Case::Nf4Dequantize { d_out, d_in } => Box::new(nf4::Dequantize::new([*d_out, *d_in], place, device)?),
        Case::Nf4Product { d_out, d_in, rows } => Box::new(nf4::Product::new([*d_out, *d_in], *rows, place, device)?),
        Case::Nf4InputGradient { d_out, d_in, rows } => {
            Box::new(nf4::InputGradient::new([*d_out, *d_in], *rows, place, device)?)
        }
        Case::Fp8Product { d_out, d_in, rows } => Box::new(fp8::Product::new([*d_out, *d_in], *rows, place, device)?),
        Case::Attention { lengths, heads, head_dim } => {
            Box::new(attention::Attention::new(lengths, *heads, *head_dim, device)?)
        }
        Case::AttentionBackward { lengths, heads, head_dim } => {
            Box::new(attention::Gradient::new(lengths, *heads, *head_dim, device)?)
        }
        Case::RmsNorm { rows, cols } => Box::new(rows::RmsNorm::new(*rows, *cols, device)?),
        Case::Rope { rows, heads, head_dim } => Box::new(rows::Rope::new(*rows, *heads, *head_dim, device)?),
        Case::Swiglu { rows, cols } => Box::new(rows::Swiglu::new(*rows, *cols, device)?),
        Case::Scan { sequences, length, state } => Box::new(scan::Scan::new(*sequences, *length, *state, device)?),
        Case::RetrieverStep { folder, .. } => Box::new(retriever::Step::new(folder.as_ref(), device)?),
        Case::Top { items, users, width, k } => Box::new(top::Top::new(*items, *users, *width, *k, device)?),
        Case::Captions { config, images, tokens, .. } => {
            Box::new(captions::Captions::new(&config.to_string(), *images, *tokens, device)?)
        }
        Case::RankerStep(reading) => Box::new(ranker::Step::new(reading, kept, device)?),
        Case::RankerScores(reading) => Box::new(ranker::Scores::new(reading, kept, device)?),
    })
}

/// How many copies of something of so many bytes are read in turn; two on the emulator, which has no cache to get around.
fn copies(bytes: usize, place: Place) -> usize {
    if place == Place::Emulated { 2 } else { ROTATED_BYTES.div_ceil(bytes.max(1)).max(2) }
}

/// Checks that a result is on the device, so that nothing else is timed.
fn on_device(result: &Tensor) -> Result<()> {
    let on_host = result.f32().is_ok() || result.bf16().is_ok() || result.u8().is_ok();
    if !on_host {
        return Ok(());
    }
    let [found, expected] = ["the host", "a device"].map(str::to_owned);
    Err(Error::Place { op: "bench", what: "the result", found, expected }.into())
}

/// Versions of what computes.
fn about() -> BTreeMap<String, String> {
    let found = kernels::inspect();
    let mut about = BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    about.insert("processor".to_owned(), found.processor.name.clone());
    for library in found.libraries {
        let version =
            library.found.ok().map(|opened| opened.version.unwrap_or_else(|| "of no known version".to_owned()));
        about.insert(library.name.to_owned(), version.unwrap_or_else(|| "not found".to_owned()));
    }
    about.extend(found.driver_release.map(|release| ("driver".to_owned(), release)));
    about
}
