//! Child processes that decode pictures.
//!
//! Bytes of pictures come from anywhere and decoders are large: a panic, an endless loop, an overflow of the stack or an
//! exhausted memory must cost one picture, not the worker. Each child decodes one picture after the other; one that dies or
//! takes too long is replaced, and the picture that it had is refused. *Knows nothing* of items, storage or captions.

mod child;
mod frames;
mod process;

use std::ffi::OsString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data::job::{Captions, Transparency};
use model::captioner::picture::{Alpha, Class, Limits, Orientation, Picture, PictureError};

pub use child::{serve, serve_with};
pub use frames::Request;
use process::Process;

/// Why there are no decoders: a fault of the installation or the machine, not of a picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodersError {
    /// The program does not start.
    #[error("cannot start the picture decoder {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The program starts, but does not speak like a decoder of this version.
    #[error("{program} does not answer like a picture decoder ({reason}): run the same version everywhere")]
    NotADecoder {
        /// The program.
        program: String,
        /// What it did.
        reason: String,
    },
}

/// How a child is started.
#[derive(Clone, Debug)]
pub struct DecoderCommand {
    /// The program.
    pub program: OsString,
    /// What makes it call [`serve`].
    pub args: Vec<OsString>,
}

impl DecoderCommand {
    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// What a child may use.
#[derive(Clone, Debug)]
pub struct DecoderLimits {
    /// Time for one picture, from the first byte sent to the last one received.
    pub time: Duration,
    /// Address space; no limit where the system has none.
    pub memory_bytes: u64,
    /// What a picture may ask for.
    pub picture: Limits,
}

impl DecoderLimits {
    /// Those of a job.
    #[must_use]
    pub fn of(settings: &Captions) -> Self {
        let bytes = usize::try_from(settings.max_bytes).unwrap_or(usize::MAX);
        let picture = Limits { bytes, pixels: settings.max_pixels, ..Limits::default() };
        // The file twice, pixels of 16 bits with transparency, and what they become on the way to plain ones.
        let wanted = 2 * settings.max_bytes + 20 * settings.max_pixels;
        Self { picture, memory_bytes: wanted.max(1 << 30), ..Self::default() }
    }
}

impl Default for DecoderLimits {
    /// Five seconds and 1 GiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(5), memory_bytes: 1 << 30, picture: Limits::default() }
    }
}

/// What is made of every picture.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Pixels a side.
    pub side: usize,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// What becomes of EXIF orientation.
    pub orientation: Orientation,
}

/// A picture as the network takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumb {
    /// `side` x `side` pixels.
    pub picture: Picture,
    /// Width before resizing.
    pub width: u32,
    /// Height before resizing.
    pub height: u32,
}

impl Look {
    /// What a job wants its pictures to look like.
    #[must_use]
    pub fn of(settings: &Captions, side: usize) -> Self {
        let alpha = match settings.transparency {
            Transparency::White => Alpha::OverWhite,
            Transparency::Drop => Alpha::Drop,
        };
        let orientation = if settings.exif_rotation { Orientation::Apply } else { Orientation::Ignore };
        Self { side, alpha, orientation }
    }
}

/// Why there is no [`Thumb`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A short name that stays as it is: those of [`PictureError`], `timeout`, `decoder_panicked` or `decoder_died`.
    pub reason: String,
    /// What the picture is put down as.
    pub class: Class,
    /// The same for people.
    pub sentence: String,
}

impl Refusal {
    /// Whether it may go otherwise the next time: its process took too long, or was ended by somebody.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.reason.as_str(), "timeout" | "decoder_died")
    }

    /// A fault that shows while decoding.
    pub(crate) fn undecodable(reason: &str, sentence: String) -> Self {
        Self { reason: reason.to_owned(), class: Class::Undecodable, sentence }
    }
}

impl From<&PictureError> for Refusal {
    fn from(error: &PictureError) -> Self {
        Self { reason: error.reason().to_owned(), class: error.class(), sentence: error.to_string() }
    }
}

/// Some children, each with at most one picture at a time.
///
/// Dropping it ends them. They also end by themselves when this process is gone.
pub struct Decoders {
    command: DecoderCommand,
    limits: DecoderLimits,
    children: Vec<Mutex<Process>>,
}

impl Decoders {
    /// Starts `count` children, at least one, and hears from each that it is a decoder.
    ///
    /// # Errors
    /// [`DecodersError`] if one does not start or answers something else.
    pub fn start(command: DecoderCommand, count: usize, limits: DecoderLimits) -> Result<Self, DecodersError> {
        let start = |_| Process::start(&command, &limits).map(Mutex::new);
        let children = (0..count.max(1)).map(start).collect::<Result<_, _>>()?;
        Ok(Self { command, limits, children })
    }

    /// Decodes and resizes; the answers are in the order of the files. Call it from a thread that may wait.
    ///
    /// # Errors
    /// [`DecodersError`] if a child that died cannot be replaced.
    pub fn decode_all<B: AsRef<[u8]> + Sync>(
        &self,
        files: &[B],
        look: Look,
    ) -> Result<Vec<Result<Thumb, Refusal>>, DecodersError> {
        let next = AtomicUsize::new(0);
        let work = |child: &Mutex<Process>| {
            let mut process = child.lock().unwrap_or_else(PoisonError::into_inner);
            let mut answers = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(place) else { return Ok(answers) };
                answers.push((place, self.decode(&mut process, file.as_ref(), look)?));
            }
        };
        let by_child: Vec<Result<Vec<_>, DecodersError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.children.iter().map(|child| scope.spawn(|| work(child))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut answers = by_child.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        answers.sort_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// One picture through one child, which is another one afterwards if it died.
    fn decode(&self, process: &mut Process, file: &[u8], look: Look) -> Result<Result<Thumb, Refusal>, DecodersError> {
        let limit = self.limits.picture.bytes;
        if file.len() > limit {
            return Ok(Err(Refusal::from(&PictureError::TooManyBytes { bytes: file.len(), limit })));
        }
        // One that died between two pictures, by the hand of an administrator say, is no fault of the next picture.
        if !process.is_alive() {
            *process = Process::start(&self.command, &self.limits)?;
        }
        let request = Request { look, limits: self.limits.picture, bytes: file.to_vec() };
        match process.ask(&request, self.limits.time) {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                *process = Process::start(&self.command, &self.limits)?;
                Ok(Err(refusal))
            }
        }
    }
}
