//! Standard output for people and scripts.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use crate::exit;

/// Prints a text and a line end. Whoever reads may leave before the end, as `head` does: that is no fault. A result that
/// cannot be written, to a full disk for example, ends the program.
pub(crate) fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush())
        && e.kind() != ErrorKind::BrokenPipe
    {
        print_error(format_args!("error: cannot write to standard output: {e}"));
        std::process::exit(exit::RETRY.into());
    }
}

/// The same on standard error.
pub(crate) fn print_error(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
