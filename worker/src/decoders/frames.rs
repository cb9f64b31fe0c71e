//! What goes through the pipes: frames with a magic, a version and bounded lengths, all numbers little-endian.
//!
//! ```text
//! frame      "MPIC", version u16, kind u16, body
//! 1 hello    memory_bytes u64                                              parent to child, once; the child answers with 2
//! 2 ready
//! 3 picture  side u32, alpha u8, orientation u8, limits u64 u64 u32, length u64, the file
//! 4 thumb    width u32, height u32, length u64, pixels
//! 5 refused  class u8, length u64, reason, length u64, sentence
//! ```

use std::io::{Error, ErrorKind, Read, Result, Write};

use model::captioner::picture::{Alpha, Class, Limits, Orientation, Picture};

use super::{Look, Refusal, Thumb};

const MAGIC: [u8; 4] = *b"MPIC";
const VERSION: u16 = 1;

const HELLO: u16 = 1;
const READY: u16 = 2;
const PICTURE: u16 = 3;
const THUMB: u16 = 4;
const REFUSED: u16 = 5;

/// The longest reason or sentence.
const TEXT: u64 = 4096;
/// The longest side of a thumb.
const SIDE: u32 = 8192;

/// A file and what to make of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to make of it.
    pub look: Look,
    /// What it may ask for.
    pub limits: Limits,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What a child says.
pub(crate) enum Answer {
    Ready,
    Picture(std::result::Result<Thumb, Refusal>),
}

/// What a child hears.
pub(crate) enum Order {
    Hello { memory_bytes: u64 },
    Picture(Request),
}

/// Writes the first frame.
pub(crate) fn write_hello(to: &mut impl Write, memory_bytes: u64) -> Result<()> {
    write_head(to, HELLO)?;
    to.write_all(&memory_bytes.to_le_bytes())?;
    to.flush()
}

/// Writes a file and what to make of it.
pub(crate) fn write_request(to: &mut impl Write, request: &Request) -> Result<()> {
    let Look { side, alpha, orientation } = request.look;
    write_head(to, PICTURE)?;
    to.write_all(&u32::try_from(side).unwrap_or(u32::MAX).to_le_bytes())?;
    to.write_all(&[u8::from(alpha == Alpha::Drop), u8::from(orientation == Orientation::Ignore)])?;
    to.write_all(&(request.limits.bytes as u64).to_le_bytes())?;
    to.write_all(&request.limits.pixels.to_le_bytes())?;
    to.write_all(&request.limits.side.to_le_bytes())?;
    write_bytes(to, &request.bytes)?;
    to.flush()
}

/// Reads what the parent says; `None` when it is gone.
pub(crate) fn read_order(from: &mut impl Read) -> Result<Option<Order>> {
    let kind = match read_head(from) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        kind => kind?,
    };
    match kind {
        HELLO => Ok(Some(Order::Hello { memory_bytes: read_u64(from)? })),
        PICTURE => read_request(from).map(|request| Some(Order::Picture(request))),
        _ => Err(wrong("an order of an unknown kind")),
    }
}

fn read_request(from: &mut impl Read) -> Result<Request> {
    let side = read_u32(from)?;
    if side == 0 || side > SIDE {
        return Err(wrong("an impossible side"));
    }
    let [drop, ignore] = read_array(from)?;
    let alpha = if drop == 0 { Alpha::OverWhite } else { Alpha::Drop };
    let orientation = if ignore == 0 { Orientation::Apply } else { Orientation::Ignore };
    let bytes = read_u64(from)?;
    let limits =
        Limits { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), pixels: read_u64(from)?, side: read_u32(from)? };
    let look = Look { side: side as usize, alpha, orientation };
    Ok(Request { look, limits, bytes: read_bytes(from, bytes)? })
}

/// Says that the child is one.
pub(crate) fn write_ready(to: &mut impl Write) -> Result<()> {
    write_head(to, READY)?;
    to.flush()
}

/// Writes what became of a picture.
pub(crate) fn write_answer(to: &mut impl Write, answer: &std::result::Result<Thumb, Refusal>) -> Result<()> {
    match answer {
        Ok(thumb) => {
            write_head(to, THUMB)?;
            to.write_all(&thumb.width.to_le_bytes())?;
            to.write_all(&thumb.height.to_le_bytes())?;
            write_bytes(to, thumb.picture.rgb())?;
        }
        Err(refusal) => {
            write_head(to, REFUSED)?;
            to.write_all(&[u8::from(refusal.class == Class::TooLarge)])?;
            write_bytes(to, refusal.reason.as_bytes())?;
            write_bytes(to, refusal.sentence.as_bytes())?;
        }
    }
    to.flush()
}

/// Reads what a child says; a thumb must have `side` x `side` pixels.
pub(crate) fn read_answer(from: &mut impl Read, side: usize) -> Result<Answer> {
    match read_head(from)? {
        READY => Ok(Answer::Ready),
        THUMB => read_thumb(from, side).map(|thumb| Answer::Picture(Ok(thumb))),
        REFUSED => read_refusal(from).map(|refusal| Answer::Picture(Err(refusal))),
        _ => Err(wrong("an answer of an unknown kind")),
    }
}

fn read_thumb(from: &mut impl Read, side: usize) -> Result<Thumb> {
    let (width, height) = (read_u32(from)?, read_u32(from)?);
    let rgb = read_bytes(from, (side as u64).saturating_mul(side as u64).saturating_mul(3))?;
    let picture = Picture::new(side, side, rgb).ok_or_else(|| wrong("a thumb of another size"))?;
    Ok(Thumb { picture, width, height })
}

fn read_refusal(from: &mut impl Read) -> Result<Refusal> {
    let [class] = read_array(from)?;
    let class = if class == 0 { Class::Undecodable } else { Class::TooLarge };
    let mut text = || Ok::<_, Error>(String::from_utf8_lossy(&read_bytes(from, TEXT)?).into_owned());
    Ok(Refusal { reason: text()?, class, sentence: text()? })
}

fn write_head(to: &mut impl Write, kind: u16) -> Result<()> {
    to.write_all(&MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&kind.to_le_bytes())
}

/// The kind of the next frame.
fn read_head(from: &mut impl Read) -> Result<u16> {
    let [a, b, c, d, v0, v1, k0, k1] = read_array(from)?;
    if [a, b, c, d] != MAGIC {
        return Err(wrong("something that is no frame"));
    }
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(wrong("a frame of another version"));
    }
    Ok(u16::from_le_bytes([k0, k1]))
}

fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads a length and as many bytes; memory grows with what really comes.
fn read_bytes(from: &mut impl Read, at_most: u64) -> Result<Vec<u8>> {
    let length = read_u64(from)?;
    if length > at_most {
        return Err(wrong("a frame that is too long"));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

fn read_u32(from: &mut impl Read) -> Result<u32> {
    Ok(u32::from_le_bytes(read_array(from)?))
}

fn read_u64(from: &mut impl Read) -> Result<u64> {
    Ok(u64::from_le_bytes(read_array(from)?))
}

fn read_array<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut array = [0; N];
    from.read_exact(&mut array)?;
    Ok(array)
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
