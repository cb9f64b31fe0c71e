//! Reads a text file line by line, plain or gzip, and goes on behind lines that are not text.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::InputFile;
use crate::{Error, Result};

/// No row of any format comes near this; a binary file must not fill the memory.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A line that cannot be used, and why.
pub(crate) type Reason = &'static str;

/// The lines of one file.
pub(crate) struct Lines {
    file: InputFile,
    reader: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    number: u64,
}

/// One line: its number, from 1, and its text without the line end.
pub(crate) struct Line<'a> {
    pub(crate) number: u64,
    pub(crate) text: Result<&'a str, Reason>,
}

impl Lines {
    /// Opens a file; gzip is recognised by its first bytes, whatever the name says.
    pub(crate) fn open(file: &InputFile) -> Result<Self> {
        let reader = Box::new(BufReader::with_capacity(1 << 16, open(&file.path)?));
        Ok(Self { file: file.clone(), reader, buffer: Vec::new(), number: 0 })
    }

    /// The next line that is not empty.
    ///
    /// # Errors
    /// [`Error::Read`] where the file itself fails, for example a gzip stream that breaks off.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let (read, too_long) = self.fill().map_err(|e| Error::Read {
                path: self.file.path.display().to_string(),
                reason: format!("line {}: {e}", self.number),
            })?;
            if read == 0 {
                return Ok(None);
            }
            let mut text = 0..self.buffer.len();
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                text.start = 3;
            }
            for line_end in [b"\n", b"\r"] {
                if self.buffer[text.clone()].ends_with(line_end) {
                    text.end -= 1;
                }
            }
            if text.is_empty() {
                continue;
            }
            let text = if too_long {
                Err("line longer than 16 MiB")
            } else {
                std::str::from_utf8(&self.buffer[text]).map_err(|_| "not UTF-8")
            };
            return Ok(Some(Line { number: self.number, text }));
        }
    }

    /// Reads one line into the buffer; of an overlong one only the beginning.
    fn fill(&mut self) -> std::io::Result<(usize, bool)> {
        let read = (&mut self.reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut self.buffer)?;
        let too_long = read == MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n');
        let mut ended = !too_long;
        while !ended {
            let chunk = self.reader.fill_buf()?;
            let end = chunk.iter().position(|b| *b == b'\n');
            let used = end.map_or(chunk.len(), |at| at + 1);
            ended = end.is_some() || chunk.is_empty();
            self.reader.consume(used);
        }
        Ok((read, too_long))
    }
}

/// Opens a file for reading, through gzip if it is compressed.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).map_err(|e| Error::read(path, &e))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let gzip = reader.fill_buf().map_err(|e| Error::read(path, &e))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}
