//! Options of commands that talk to a coordinator, and of the coordinator that they talk to.

use std::net::SocketAddr;

use anyhow::Result;

use crate::exit::BadRequest;

/// Where a coordinator listens, and where it is looked for, unless somebody says otherwise.
const DEFAULT: &str = "http://127.0.0.1:7070";

/// Which coordinator; to be flattened into every command that talks to one.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Coordinator")]
pub(crate) struct Reach {
    /// The coordinator [default: http://127.0.0.1:7070]
    #[arg(long, value_name = "URL", env = "MLLM4REC_COORDINATOR")]
    pub(crate) coordinator: Option<String>,
}

impl Reach {
    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.coordinator.clone().unwrap_or_else(|| DEFAULT.to_owned())
    }

    /// Whether somebody has named one.
    pub(crate) fn is_given(&self) -> bool {
        self.coordinator.is_some()
    }
}

/// Where a coordinator listens, and who may call it; to be flattened into the command that runs one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
pub(crate) struct Listening {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070", env = "MLLM4REC_LISTEN")]
    pub(crate) listen: SocketAddr,
}

impl Listening {
    /// Refuses an address at which strangers could submit jobs.
    pub(crate) fn access(&self) -> Result<()> {
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        let Self { listen } = self;
        let words = format!(
            "will not listen on {listen}: whoever reaches it could run jobs and read the root, and this build knows no \
             TLS. Listen on 127.0.0.1:{} and reach it from other machines through a tunnel (ssh -L)",
            listen.port()
        );
        Err(BadRequest(words).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_kept_out() {
        let access = |listen: &str| Listening { listen: listen.parse().expect("it is an address") }.access();
        assert!(access("127.0.0.1:7070").is_ok());
        assert!(access("[::1]:0").is_ok());
        for open in ["0.0.0.0:7070", "10.0.0.7:7070", "[::]:7070"] {
            let refused = access(open).expect_err("everybody could call");
            assert!(refused.to_string().contains(open), "{refused}");
            assert_eq!(crate::exit::code_of(&refused), crate::exit::BAD_CONFIG);
        }
    }
}
