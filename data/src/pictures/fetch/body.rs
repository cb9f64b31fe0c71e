//! The bytes of an answer, no more than are allowed.

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use sha2::{Digest as _, Sha256};

use super::budget::Budget;
use super::client;
use super::image::{MAGIC_BYTES, looks_like_image};
use super::outcome::{FetchFailure, FetchReason};
use crate::artifact::Digest;

/// Room that is made at once; a server can announce more than it has.
const FIRST_ROOM: u64 = 1 << 20;

/// A picture that has arrived.
pub(super) struct Picture {
    pub(super) sha256: Digest,
    pub(super) bytes: Bytes,
}

/// Reads a body. What is refused is refused as early as possible; dropping the answer closes the connection.
///
/// A body ends where its Content-Length says, and what follows is no part of it. Fewer bytes are an error of the client.
pub(super) async fn read(mut answer: Response, limit: u64, budget: &Budget) -> Result<Picture, FetchFailure> {
    refuse_encoded(answer.headers())?;
    let announced = answer.content_length().unwrap_or(0);
    if announced > limit {
        return Err(too_large(format!("announces {announced} bytes"), limit));
    }
    let mut bytes = Vec::with_capacity(announced.min(FIRST_ROOM) as usize);
    let mut hasher = Sha256::new();
    while let Some(chunk) = answer.chunk().await.map_err(client::failure)? {
        budget.take(chunk.len() as u64)?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large("goes on".to_owned(), limit));
        }
        hasher.update(&chunk);
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= MAGIC_BYTES {
            refuse_others(&bytes)?;
        }
    }
    refuse_others(&bytes)?;
    Ok(Picture { sha256: Digest::of_hasher(hasher), bytes: bytes.into() })
}

fn refuse_encoded(headers: &HeaderMap) -> Result<(), FetchFailure> {
    let plain = |value: &[u8]| value.trim_ascii().is_empty() || value.trim_ascii().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().find(|value| !plain(value.as_bytes())) {
        None => Ok(()),
        Some(encoding) => {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).chars().take(40).collect::<String>();
            Err(FetchReason::Encoded.because(format!("the answer is encoded as `{encoding}`, which was not asked for")))
        }
    }
}

fn refuse_others(bytes: &[u8]) -> Result<(), FetchFailure> {
    match bytes {
        [] => Err(FetchReason::NotAnImage.because("the answer is empty")),
        bytes if looks_like_image(bytes) => Ok(()),
        _ => Err(FetchReason::NotAnImage.because("the answer does not begin as a JPEG, PNG, WebP, GIF or BMP does")),
    }
}

fn too_large(what: String, limit: u64) -> FetchFailure {
    FetchReason::TooLarge { limit }.because(format!("the answer {what}, a picture may have {limit} bytes"))
}
