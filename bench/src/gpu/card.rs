//! The card as its driver's program describes it. It is asked and never told.

use std::process::Command;

use serde::Serialize;

/// What `nvidia-smi` is asked for.
const FIELDS: &str = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,\
                      temperature.gpu,pstate";

/// Clocks, power and memory at one moment, a line for every card; or why nothing is known.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct State(String);

impl State {
    /// As it is now.
    pub(super) fn now() -> Self {
        let mut command = Command::new("nvidia-smi");
        let asked = command.arg(format!("--query-gpu={FIELDS}")).arg("--format=csv,noheader").output();
        Self(match asked {
            Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().replace('\n', "; "),
            Ok(out) => format!("nvidia-smi says: {}", String::from_utf8_lossy(&out.stdout).trim()),
            Err(e) => format!("nvidia-smi cannot be started: {e}"),
        })
    }

    /// The names of the fields, for people.
    pub(super) fn fields() -> String {
        FIELDS.replace(',', ", ")
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
