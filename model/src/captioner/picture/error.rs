//! Why a picture is not taken.

use image::ImageFormat;

/// The longest quotation of a decoder's own words.
const WORDS: usize = 160;

/// What a refused picture is put down as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The bytes are no picture that can be read.
    Undecodable,
    /// It may be a picture, but it asks for more than the limits give.
    TooLarge,
}

/// Why a picture is not taken. Each is a normal answer to bytes that come from anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// There is nothing.
    #[error("the file is empty")]
    Empty,
    /// The file is longer than the limit.
    #[error("the file has {bytes} bytes, the limit is {limit}")]
    TooManyBytes {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The first bytes are those of no picture format.
    #[error(
        "the file does not begin like a picture; JPEG, PNG, WebP, GIF and BMP are read, whatever the file is called"
    )]
    UnknownFormat,
    /// A picture format, or a kind of one, that is not read.
    #[error("{what} is not supported: convert the picture to plain JPEG or PNG")]
    Unsupported {
        /// What is not supported.
        what: String,
    },
    /// A side of zero.
    #[error("the header says {width} x {height} pixels")]
    ZeroSize {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A side is longer than the limit.
    #[error("the header says {width} x {height} pixels, the limit of a side is {limit}")]
    SideTooLong {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit: u32,
    },
    /// More pixels than the limit.
    #[error("the header says {width} x {height} pixels, the limit is {limit} in all")]
    TooManyPixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// The decoder wants more memory than a picture within the limits needs.
    #[error("the {format} needs more memory than a picture of its size should")]
    TooMuchMemory {
        /// The format.
        format: &'static str,
    },
    /// The file ends before the picture does.
    #[error("the {format} ends before the picture does: fetch or save it again")]
    Truncated {
        /// The format.
        format: &'static str,
    },
    /// The format's rules are broken.
    #[error("the {format} is damaged: {reason}")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

impl PictureError {
    /// A short name that stays as it is, for tables and counts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::UnknownFormat => "unknown_format",
            Self::Unsupported { .. } => "unsupported",
            Self::ZeroSize { .. } => "zero_size",
            Self::SideTooLong { .. } => "side_too_long",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
        }
    }

    /// What the picture is put down as.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::TooManyBytes { .. }
            | Self::SideTooLong { .. }
            | Self::TooManyPixels { .. }
            | Self::TooMuchMemory { .. } => Class::TooLarge,
            _ => Class::Undecodable,
        }
    }

    /// What a decoder's error means.
    pub(crate) fn from_decoder(format: ImageFormat, error: &image::ImageError) -> Self {
        use image::ImageError;
        let format = name(format);
        match error {
            ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Self::Truncated { format },
            ImageError::Limits(_) => Self::TooMuchMemory { format },
            ImageError::Unsupported(e) => Self::Unsupported { what: format!("this kind of {format} ({})", words(e)) },
            other => Self::Corrupt { format, reason: words(other) },
        }
    }
}

/// What people call a format.
pub(crate) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Avif => "AVIF",
        ImageFormat::Ico => "an icon file",
        ImageFormat::Dds => "DDS",
        ImageFormat::Hdr => "Radiance HDR",
        ImageFormat::OpenExr => "OpenEXR",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Qoi => "QOI",
        ImageFormat::Farbfeld => "Farbfeld",
        _ => "this format",
    }
}

/// A decoder's own words, on one line and not too long.
fn words(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(WORDS).collect()
}
