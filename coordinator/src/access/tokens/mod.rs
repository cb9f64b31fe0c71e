//! Tokens of people: who has one, known by its hash.
//!
//! ```toml
//! [[token]]
//! name = "alice"
//! role = "submitter"
//! sha256 = "9f86d0…"
//! expires = 2027-01-31T00:00:00Z
//! ```

mod expiry;
mod file;

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use expiry::Expiry;
pub use file::{create, revoke};

use super::{AccessError, Role, check_name};

/// What every token begins with, so that it is known for one where it should not be.
pub const PREFIX: &str = "m4r_";

/// Somebody who has a token.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub name: String,
    /// What the token allows.
    pub role: Role,
    /// The hash of the token.
    pub sha256: [u8; 32],
    /// When it ends; never if it is not said.
    pub expires: Option<Expiry>,
}

impl Entry {
    /// Whether the token has ended.
    #[must_use]
    pub fn expired(&self, now: SystemTime) -> bool {
        self.expires.as_ref().is_some_and(|expires| expires.is_past(now))
    }
}

/// Everybody who has a token.
#[derive(Clone, Debug, Default)]
pub struct Tokens(pub Vec<Entry>);

/// The file as it is written.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    token: Vec<RawEntry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    role: String,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Expiry>,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is no list of tokens.
    pub fn read(file: &Path) -> Result<Self, AccessError> {
        let text = std::fs::read_to_string(file).map_err(|e| AccessError::file(file, e))?;
        // The parser's own words would quote the line, which may hold a token that somebody pasted there.
        let raw: Raw = toml::from_str(&text).map_err(|e| AccessError::file(file, e.message()))?;
        let entries = raw.token.into_iter().enumerate().map(|(i, entry)| {
            checked(entry).map_err(|reason| AccessError::file(file, format!("token {}: {reason}", i + 1)))
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    /// Whose token this is. Every entry is compared in full, however early it could be told apart.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<&Entry> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.0.iter().fold(None, |found, entry| if bool::from(entry.sha256.ct_eq(&hash)) { Some(entry) } else { found })
    }
}

fn checked(raw: RawEntry) -> Result<Entry, String> {
    let RawEntry { name, role, sha256, expires } = raw;
    check_name(&name).map_err(|e| e.to_string())?;
    let role: Role = role.parse().map_err(|e: AccessError| e.to_string())?;
    if role == Role::Worker {
        return Err(AccessError::WorkerToken.to_string());
    }
    let sha256 = from_hex(&sha256).ok_or("sha256 must be 64 hexadecimal digits, the hash of the token")?;
    Ok(Entry { name, role, sha256, expires })
}

/// A token in the clear, for the moment in which it is made and told.
pub struct Secret(String);

impl Secret {
    /// Makes one that nobody guesses.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text to be told, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
