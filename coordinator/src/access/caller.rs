//! Who calls.

use std::fmt;

use tonic::Request;
use tracing::info;

use super::{AccessError, Role};

/// Who calls, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody on this machine; nothing was asked.
    Local,
    /// Somebody with a certificate or a token.
    Known {
        /// The name in it.
        name: String,
        /// The role in it.
        role: Role,
    },
}

impl Caller {
    /// Who made a request that the guard has let pass.
    #[must_use]
    pub fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or(Self::Local)
    }

    /// Leaves a line in the audit log: this caller has changed something.
    pub fn changed(&self, method: &'static str, job: &str) {
        info!(target: "audit", who = self.name(), role = self.role(), method, job, "changed");
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Known { name, .. } => name,
        }
    }

    pub(crate) fn role(&self) -> &'static str {
        match self {
            Self::Local => "any",
            Self::Known { role, .. } => role.as_str(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.role())
    }
}

/// Checks that a name can stand in a log line, an URI and a file name.
///
/// # Errors
/// If it is empty, too long, or has other characters than letters, digits, dots, dashes and underscores.
pub fn check_name(name: &str) -> Result<(), AccessError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(AccessError::Name { name: name.escape_default().to_string() })
    }
}
