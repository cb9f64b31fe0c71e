//! Roles, and which methods are theirs.

use std::fmt;
use std::str::FromStr;

use super::AccessError;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees jobs.
    Viewer,
    /// Sees jobs, submits, resumes and cancels them.
    Submitter,
    /// May do all that people may do.
    Operator,
    /// Takes leases, and sees no jobs but those it works on.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Operator, Self::Worker];

    /// The role as certificates and token files spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| AccessError::Role { role: text.to_owned() })
    }
}

const SEES: &[Role] = &[Role::Viewer, Role::Submitter, Role::Operator];
const CHANGES: &[Role] = &[Role::Submitter, Role::Operator];
const WORKS: &[Role] = &[Role::Worker];

/// Whose each method is. What does not stand here is nobody's.
const METHODS: &[(&str, &[Role])] = &[
    ("/mllm4rec.v1.Jobs/Get", SEES),
    ("/mllm4rec.v1.Jobs/List", SEES),
    ("/mllm4rec.v1.Jobs/Watch", SEES),
    ("/mllm4rec.v1.Jobs/Info", SEES),
    ("/mllm4rec.v1.Jobs/Submit", CHANGES),
    ("/mllm4rec.v1.Jobs/Resume", CHANGES),
    ("/mllm4rec.v1.Jobs/Cancel", CHANGES),
    ("/mllm4rec.v1.Workers/Session", WORKS),
];

/// The roles that may call a method, given by the path of its request.
pub(crate) fn that_may_call(method: &str) -> &'static [Role] {
    METHODS.iter().find(|(path, _)| *path == method).map_or(&[], |(_, roles)| roles)
}
