//! A token, and how it is shown.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// What tells the coordinator who somebody is. It is never printed.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    /// Takes a token as `mllm4rec token create` prints it; space around it does not matter. None if it cannot be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().ok().filter(|_| fits)?;
        // Kept out of HTTP/2's header tables and of what libraries log.
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Shows the token with every request, if there is one.
#[derive(Clone, Debug)]
pub struct Bearer(Option<Token>);

impl Bearer {
    pub(super) fn new(token: Option<&Token>) -> Self {
        Self(token.cloned())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Token(value)) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}
