//! `longshore token`: the tokens that let peers join, in the supernode's data folder. A running supernode sees a
//! change at the next enrolment.

use std::time::SystemTime;

use anyhow::bail;
use common::config::Span;
use common::identity::{Authority, TokenBook, TokenInfo, TokenOptions, TokenState};
use serde_json::json;

use crate::cli::{Token, TokenDeed};
use crate::usage;

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub fn run(flags: Token) -> anyhow::Result<()> {
    let dir = flags.data_dir.unwrap_or_else(common::config::data_dir_default);
    // `longshore up` keeps its supernode one folder below.
    let homes = [dir.join("identity"), dir.join("supernode").join("identity")];
    let Some(identity) = homes.into_iter().find(|home| home.join("ca.pem").exists()) else {
        bail!("no supernode lives in {}: name its folder with --data-dir", dir.display());
    };
    let book = TokenBook::open(&identity)?;
    match flags.deed {
        TokenDeed::Create { expires, uses, note } => {
            let expires_in =
                expires.map(|text| text.parse::<Span>()).transpose().map_err(usage)?.map(|span| span.0);
            let authority = Authority::open(&identity)?;
            let options = TokenOptions { note, expires_in, uses };
            let token = book.create(authority.fingerprint(), options, SystemTime::now())?;
            if flags.json {
                println!("{}", json!({ "id": token.id(), "token": token.to_string() }));
            } else {
                println!("{token}");
            }
        }
        TokenDeed::List => {
            let tokens = book.list()?;
            if flags.json {
                let rows: Vec<_> = tokens.iter().map(row).collect();
                println!("{}", serde_json::to_string_pretty(&rows)?);
            } else {
                println!("{:<10} {:<9} {:>6} NOTE", "ID", "STATE", "USES");
                for token in &tokens {
                    let left =
                        token.uses.map_or_else(|| "any".into(), |uses| format!("{}/{uses}", token.used));
                    println!("{:<10} {:<9} {left:>6} {}", token.id, state(token), token.note);
                }
            }
        }
        TokenDeed::Revoke { id } => {
            book.revoke(&id)?;
            if flags.json {
                println!("{}", json!({ "revoked": true }));
            } else {
                println!("revoked");
            }
        }
    }
    Ok(())
}

fn row(token: &TokenInfo) -> serde_json::Value {
    json!({ "id": token.id, "state": state(token), "used": token.used, "uses": token.uses, "note": token.note })
}

fn state(token: &TokenInfo) -> &'static str {
    match token.state(SystemTime::now()) {
        TokenState::Valid => "valid",
        TokenState::Revoked => "revoked",
        TokenState::Expired => "expired",
        TokenState::UsedUp => "used up",
    }
}
