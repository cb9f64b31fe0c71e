//! What is asked of a device, as something that can be kept, compared and asked for again.

use std::borrow::Cow;
use std::fmt;

use super::{Address, Arg, Driver, Geometry, Product, Source};
use crate::Result;

/// Work for a device, in memory that it has already.
#[derive(Clone, Debug)]
pub(crate) enum Operation<'a> {
    /// A kernel: see [`Driver::launch`].
    Launch { source: Source, kernel: &'static str, geometry: Geometry, arguments: Cow<'a, [Arg]> },
    /// A product: see [`Driver::multiply`].
    Multiply(Product),
    /// A copy within the device: see [`Driver::copy`].
    Copy { from: Address, to: Address, bytes: usize },
    /// A fill: see [`Driver::fill`].
    Fill { to: Address, byte: u8, bytes: usize },
}

/// How an operation compares with one that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Nothing differs.
    Same,
    /// The kernel and its geometry are the same, with as many arguments, of which some have other values.
    Arguments,
    /// It is another operation.
    Other,
}

impl Operation<'_> {
    /// Asks a device for it.
    ///
    /// # Safety
    /// As [`Driver::launch`] and [`Driver::multiply`].
    pub(crate) unsafe fn issue(&self, on: &dyn Driver) -> Result<()> {
        match self {
            // SAFETY: the caller's promise.
            Self::Launch { source, kernel, geometry, arguments } => unsafe {
                on.launch(source, kernel, *geometry, arguments)
            },
            // SAFETY: the caller's promise.
            Self::Multiply(product) => unsafe { on.multiply(product) },
            Self::Copy { from, to, bytes } => on.copy(*from, *to, *bytes),
            Self::Fill { to, byte, bytes } => on.fill(*to, *byte, *bytes),
        }
    }

    /// Compares with what is asked for now: numbers by their bits, so that a NaN is itself and zeros have signs.
    pub(crate) fn fit(&self, asked: &Operation<'_>) -> Fit {
        let fits = |same: bool| if same { Fit::Same } else { Fit::Other };
        match (self, asked) {
            (
                Self::Launch { source, kernel, geometry, arguments },
                Operation::Launch { source: source_now, kernel: kernel_now, geometry: geometry_now, arguments: now },
            ) => {
                let alike = geometry == geometry_now && arguments.len() == now.len();
                if !alike || kernel != kernel_now || source.name != source_now.name {
                    return Fit::Other;
                }
                let same = arguments.iter().zip(now.iter()).all(|(was, is)| was.same(*is));
                if same { Fit::Same } else { Fit::Arguments }
            }
            (Self::Multiply(was), Operation::Multiply(is)) => fits(was.same(is)),
            (Self::Copy { from, to, bytes }, Operation::Copy { from: from_now, to: to_now, bytes: bytes_now }) => {
                fits((from, to, bytes) == (from_now, to_now, bytes_now))
            }
            (Self::Fill { to, byte, bytes }, Operation::Fill { to: to_now, byte: byte_now, bytes: bytes_now }) => {
                fits((to, byte, bytes) == (to_now, byte_now, bytes_now))
            }
            _ => Fit::Other,
        }
    }

    /// The same with arguments of its own.
    pub(crate) fn kept(self) -> Operation<'static> {
        match self {
            Self::Launch { source, kernel, geometry, arguments } => {
                Operation::Launch { source, kernel, geometry, arguments: Cow::Owned(arguments.into_owned()) }
            }
            Self::Multiply(product) => Operation::Multiply(product),
            Self::Copy { from, to, bytes } => Operation::Copy { from, to, bytes },
            Self::Fill { to, byte, bytes } => Operation::Fill { to, byte, bytes },
        }
    }
}

impl Operation<'static> {
    /// Gives a launch other arguments, as many as it has.
    pub(crate) fn set_arguments(&mut self, now: &[Arg]) {
        if let Self::Launch { arguments, .. } = self {
            arguments.to_mut().copy_from_slice(now);
        }
    }
}

/// For people who want to know why a recording did not fit.
impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch { source, kernel, geometry: Geometry { grid, block, .. }, .. } => {
                write!(f, "{kernel} of {} in {grid:?} blocks of {block:?}", source.name)
            }
            Self::Multiply(Product { rows, cols, depth, alpha, beta, .. }) => {
                write!(f, "a product of {rows} rows, {cols} columns and depth {depth} with factors {alpha} and {beta}")
            }
            Self::Copy { from, to, bytes } => write!(f, "a copy of {bytes} bytes from {:#x} to {:#x}", from.0, to.0),
            Self::Fill { to, bytes, .. } => write!(f, "a fill of {bytes} bytes at {:#x}", to.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch<'a>(kernel: &'static str, blocks: usize, arguments: &'a [Arg]) -> Operation<'a> {
        let source = Source { name: "op", text: "" };
        Operation::Launch { source, kernel, geometry: Geometry::blocks(blocks, 32), arguments: arguments.into() }
    }

    #[test]
    fn operations_are_compared_bit_by_bit() {
        let recorded = launch("f", 1, &[Arg::F32(f32::NAN), Arg::F32(0.0)]);
        assert_eq!(recorded.fit(&launch("f", 1, &[Arg::F32(f32::NAN), Arg::F32(0.0)])), Fit::Same);
        assert_eq!(recorded.fit(&launch("f", 1, &[Arg::F32(f32::NAN), Arg::F32(-0.0)])), Fit::Arguments);
        assert_eq!(recorded.fit(&launch("f", 1, &[Arg::F32(f32::NAN), Arg::U32(0)])), Fit::Arguments);
        for other in [launch("f", 1, &[Arg::F32(0.0)]), launch("g", 1, &[Arg::F32(f32::NAN), Arg::F32(0.0)])] {
            assert_eq!(recorded.fit(&other), Fit::Other);
        }
        assert_eq!(recorded.fit(&launch("f", 2, &[Arg::F32(f32::NAN), Arg::F32(0.0)])), Fit::Other);
        let fill = |byte| Operation::Fill { to: Address(256), byte, bytes: 4 };
        assert_eq!(
            [fill(0).fit(&fill(0)), fill(0).fit(&fill(1)), fill(0).fit(&recorded)],
            [Fit::Same, Fit::Other, Fit::Other]
        );
    }
}
