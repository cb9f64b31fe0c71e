//! `mllm4rec token`: who may call a coordinator without a certificate.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use comfy_table::Table as Grid;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use coordinator::access::tokens::{self, Expiry, Tokens};
use serde_json::json;

use crate::args::{Token, TokenAction, TokenCreate};
use crate::exit;
use crate::terminal::{print, print_error};

/// Makes, lists or revokes tokens.
pub(crate) fn run(args: &Token) -> Result<u8> {
    match &args.action {
        TokenAction::Create(create) => make(create)?,
        TokenAction::List(list) => show(&list.tokens, list.json)?,
        TokenAction::Revoke(revoke) => {
            tokens::revoke(&revoke.tokens, &revoke.name).map_err(coordinator::Error::from)?;
            let file = revoke.tokens.display();
            print_error(format_args!(
                "the token of {} is no longer in {file}: it ends with the next request",
                revoke.name
            ));
        }
    }
    Ok(exit::DONE)
}

/// The token alone goes to standard output, so that it can be sent into a file.
fn make(args: &TokenCreate) -> Result<()> {
    let expires = Expiry::in_days(SystemTime::now(), args.days);
    let secret =
        tokens::create(&args.tokens, &args.name, args.role, Some(expires)).map_err(coordinator::Error::from)?;
    print(secret.reveal());
    print_error(format_args!(
        "{} is a {} until {expires}. This is the only time that the token is shown: {} holds its hash alone. Use it with \
         --token-file FILE or in MLLM4REC_TOKEN",
        args.name,
        args.role,
        args.tokens.display()
    ));
    Ok(())
}

fn show(file: &Path, as_json: bool) -> Result<()> {
    let now = SystemTime::now();
    let Tokens(entries) = Tokens::read(file).map_err(coordinator::Error::from)?;
    let expires = |entry: &tokens::Entry| entry.expires.map(|expires| expires.to_string());
    if as_json {
        let rows = entries.iter().map(|entry| {
            json!({"name": entry.name, "role": entry.role.as_str(), "expires": expires(entry), "expired": entry.expired(now)})
        });
        print(format_args!("{:#}", serde_json::Value::Array(rows.collect())));
        return Ok(());
    }
    let mut grid = Grid::new();
    grid.load_style(UTF8_BORDERS_ONLY);
    grid.set_header(["name", "role", "expires", ""]);
    for entry in &entries {
        let state = if entry.expired(now) { "expired" } else { "" };
        let until = expires(entry).unwrap_or("never".to_owned());
        grid.add_row([entry.name.as_str(), entry.role.as_str(), &until, state]);
    }
    print(grid);
    Ok(())
}
