//! Standard output for people and scripts.

use std::fmt::Display;
use std::io::Write as _;

/// Prints a text and a line end. Whoever reads may leave before the end, as `head` does: that is no fault.
pub(crate) fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The same on standard error.
pub(crate) fn print_error(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
