//! Changes the file of tokens.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Entry, Expiry, Raw, RawEntry, Secret, Tokens, to_hex};
use crate::access::{AccessError, Role, check_name};

const HEADER: &str = "# Who has a token, and its SHA-256. Written by `mllm4rec token`; comments are not kept.\n\n";

/// Makes a token and writes its hash into the file, which is made if there is none.
///
/// # Errors
/// If the name has one already, the role is a worker's, or the file cannot be read or written.
pub fn create(file: &Path, name: &str, role: Role, expires: Option<Expiry>) -> Result<Secret, AccessError> {
    check_name(name)?;
    if role == Role::Worker {
        return Err(AccessError::WorkerToken);
    }
    let _lock = lock(file)?;
    let mut tokens = if file.exists() { Tokens::read(file)? } else { Tokens::default() };
    if tokens.0.iter().any(|entry| entry.name == name) {
        return Err(AccessError::TokenExists { name: name.to_owned(), path: file.to_owned() });
    }
    let secret = Secret::generate().map_err(|e| AccessError::file(file, e))?;
    tokens.0.push(Entry { name: name.to_owned(), role, sha256: secret.sha256(), expires });
    write(file, tokens)?;
    Ok(secret)
}

/// Removes the token of a name.
///
/// # Errors
/// If there is none, or the file cannot be read or written.
pub fn revoke(file: &Path, name: &str) -> Result<(), AccessError> {
    let _lock = lock(file)?;
    let mut tokens = Tokens::read(file)?;
    let before = tokens.0.len();
    tokens.0.retain(|entry| entry.name != name);
    if tokens.0.len() == before {
        return Err(AccessError::NoToken { name: name.to_owned(), path: file.to_owned() });
    }
    write(file, tokens)
}

/// Two who change the file at once take turns. The file itself is replaced by every change and cannot be what is locked.
fn lock(file: &Path) -> Result<File, AccessError> {
    let path = beside(file, "lock");
    let open = || {
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        lock.lock()?;
        Ok(lock)
    };
    open().map_err(|e: std::io::Error| AccessError::file(&path, e))
}

/// Puts the new file into the place of the old one in one step: a coordinator never reads half of it.
fn write(file: &Path, tokens: Tokens) -> Result<(), AccessError> {
    let token = tokens.0.into_iter().map(|entry| RawEntry {
        name: entry.name,
        role: entry.role.to_string(),
        sha256: to_hex(&entry.sha256),
        expires: entry.expires,
    });
    let text = toml::to_string(&Raw { token: token.collect() }).map_err(|e| AccessError::file(file, e))?;
    let new = beside(file, "new");
    let replace = || {
        let mut out = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        out.write_all(HEADER.as_bytes())?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&new, file)
    };
    replace().map_err(|e: std::io::Error| AccessError::file(file, e))
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    file.with_file_name(name)
}
