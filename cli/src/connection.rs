//! Options of commands that talk to a coordinator, and of the coordinator that they talk to.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use coordinator::access::{Access, AccessFlags};
use proto::{Endpoint, Token};

use crate::exit::BadRequest;

/// The variable that may hold a token. There is no option for it: the command line is everybody's to read.
const TOKEN: &str = "MLLM4REC_TOKEN";

/// Where a coordinator listens, and where it is looked for, unless somebody says otherwise.
const DEFAULT: &str = "http://127.0.0.1:7070";

/// Which coordinator, and who we are to it; to be flattened into every command that talks to one.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Coordinator")]
pub(crate) struct Reach {
    /// The coordinator: https://host:port, or http://127.0.0.1:port of one on this machine [default: http://127.0.0.1:7070]
    #[arg(long, value_name = "URL", env = "MLLM4REC_COORDINATOR")]
    pub(crate) coordinator: Option<String>,
    /// Who must have signed the coordinator's certificate; the system's authorities by default.
    #[arg(long, value_name = "FILE", env = "MLLM4REC_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Our certificate.
    #[arg(long, value_name = "FILE", env = "MLLM4REC_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", env = "MLLM4REC_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A file with a token, which decides also beside a certificate; or the token itself in MLLM4REC_TOKEN.
    #[arg(long, value_name = "FILE", env = "MLLM4REC_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl Reach {
    /// The environment variables that these options are also read from.
    pub(crate) const VARIABLES: [&str; 6] = [
        "MLLM4REC_COORDINATOR",
        "MLLM4REC_TLS_CA",
        "MLLM4REC_TLS_CERT",
        "MLLM4REC_TLS_KEY",
        "MLLM4REC_TOKEN_FILE",
        TOKEN,
    ];

    /// Whether somebody has named one.
    pub(crate) fn is_given(&self) -> bool {
        self.coordinator.is_some()
    }

    /// Puts the options together.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        let token = self.token()?;
        let Self { tls_ca: ca, tls_cert: cert, tls_key: key, .. } = self.clone();
        let url = self.coordinator.clone().unwrap_or_else(|| DEFAULT.to_owned());
        Ok(Endpoint { url, ca, cert, key, token })
    }

    fn token(&self) -> Result<Option<Token>> {
        let (text, origin) = match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                (text, file.display().to_string())
            }
            None => match std::env::var(TOKEN) {
                Ok(text) => (text, TOKEN.to_owned()),
                Err(_) => return Ok(None),
            },
        };
        let none = || BadRequest(format!("there is no token in {origin}; `mllm4rec token create` prints one"));
        Ok(Some(Token::new(&text).ok_or_else(none)?))
    }
}

/// Where a coordinator listens, and who may call it; to be flattened into the command that runs one.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
pub(crate) struct Listening {
    /// Where to listen. Beyond this machine it takes TLS and --client-ca.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070", env = "MLLM4REC_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// The coordinator's certificate; `mllm4rec certs` makes one.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authority that signs the certificates of workers and people.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Tokens of people; `mllm4rec token` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
}

impl Listening {
    /// Who may call, as these options have it.
    pub(crate) fn access(&self) -> Result<Access> {
        let Self { tls_cert, tls_key, client_ca, tokens, .. } = self.clone();
        Ok(Access::from_flags(AccessFlags { tls_cert, tls_key, client_ca, tokens })
            .map_err(coordinator::Error::from)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        listening: Listening,
    }

    fn access(args: &[&str]) -> Result<Access> {
        Command::parse_from([&["coordinator"], args].concat()).listening.access()
    }

    #[test]
    fn flags_of_a_coordinator_make_its_access() -> Result<()> {
        assert!(matches!(access(&[])?, Access::Open));
        let tls = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];
        let lacking = access(&tls).expect_err("the authority is missing");
        assert!(lacking.to_string().contains("--client-ca"), "{lacking}");
        assert_eq!(crate::exit::code_of(&lacking), crate::exit::BAD_CONFIG);
        let Access::Guarded(files) = access(&[&tls[..], &["--client-ca", "ca.pem", "--tokens", "t.toml"]].concat())?
        else {
            panic!("these are all that it takes");
        };
        assert_eq!((files.client_ca, files.tokens), (PathBuf::from("ca.pem"), Some(PathBuf::from("t.toml"))));
        Ok(())
    }
}
