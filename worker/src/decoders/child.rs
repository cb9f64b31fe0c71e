//! The side of the child.

use std::io::{BufReader, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use model::captioner::picture::{decode, resize};

use super::frames::{self, Order};
use super::{Refusal, Request, Thumb};

/// Decodes until the parent is gone. The program must not write anything else to its standard output.
pub fn serve(stdin: impl Read, stdout: impl Write) -> ExitCode {
    serve_with(stdin, stdout, thumb)
}

/// As [`serve`], with another decoder: for tests of what misbehaves.
pub fn serve_with(
    stdin: impl Read,
    stdout: impl Write,
    decoder: impl Fn(&Request) -> Result<Thumb, Refusal>,
) -> ExitCode {
    // Whoever reads the answers has gone, or was never there: nobody is left to tell.
    match answer_all(&mut BufReader::new(stdin), &mut BufWriter::new(stdout), decoder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_all(
    from: &mut impl Read,
    to: &mut impl Write,
    decoder: impl Fn(&Request) -> Result<Thumb, Refusal>,
) -> std::io::Result<()> {
    while let Some(order) = frames::read_order(from)? {
        match order {
            Order::Hello { memory_bytes } => {
                limit(memory_bytes)?;
                frames::write_ready(to)?;
            }
            Order::Picture(request) => {
                // What a panic leaves behind is thrown away with the request.
                let answer = catch_unwind(AssertUnwindSafe(|| decoder(&request)));
                frames::write_answer(to, &answer.unwrap_or_else(|_| Err(panicked())))?;
            }
        }
    }
    Ok(())
}

/// What a child is for.
fn thumb(request: &Request) -> Result<Thumb, Refusal> {
    let look = request.look;
    let picture =
        decode(&request.bytes, &request.limits, look.orientation, look.alpha).map_err(|e| Refusal::from(&e))?;
    // Limits of a side are 32 bits wide, so sides are.
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    Ok(Thumb { picture: resize(&picture, look.side), width, height })
}

fn panicked() -> Refusal {
    Refusal::undecodable("decoder_panicked", "the decoder panicked over this picture".to_owned())
}

/// Bounds the address space, and leaves no core file of pictures behind.
#[cfg(unix)]
fn limit(memory_bytes: u64) -> std::io::Result<()> {
    let set = |resource, value: u64| {
        let bound = libc::rlimit { rlim_cur: value as libc::rlim_t, rlim_max: value as libc::rlim_t };
        // SAFETY: the call reads one structure, which lives until it returns.
        if unsafe { libc::setrlimit(resource, &raw const bound) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    set(libc::RLIMIT_CORE, 0)?;
    // Not every system bounds address space; the limits of pictures and the time hold there too.
    if cfg!(target_os = "linux") { set(libc::RLIMIT_AS, memory_bytes) } else { Ok(()) }
}

#[cfg(not(unix))]
fn limit(_memory_bytes: u64) -> std::io::Result<()> {
    Ok(())
}
