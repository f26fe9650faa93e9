//! `longshore token`: the tokens that let peers join, in the cluster's folder. A running supernode sees a
//! change at the next enrolment.

use std::time::SystemTime;

use common::config::Span;
use common::identity::{Authority, TokenBook, TokenInfo, TokenOptions, TokenState};
use serde_json::json;

use crate::cli::{Token, TokenDeed};
use crate::{cluster_folder, node, usage};

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub fn run(flags: Token) -> anyhow::Result<()> {
    let identity = cluster_folder::find(&flags.folder)?;
    let book = TokenBook::open(&identity)?;
    match flags.deed {
        TokenDeed::Create { expires, uses, note } => {
            let expires_in =
                expires.map(|text| text.parse::<Span>()).transpose().map_err(usage)?.map(|span| span.0);
            let authority = Authority::open(&identity)?;
            let options = TokenOptions { note, expires_in, uses };
            let token = book.create(authority.fingerprint(), options, SystemTime::now())?;
            if flags.folder.json {
                println!("{}", json!({ "id": token.id(), "token": token.to_string() }));
            } else {
                println!("{token}");
            }
        }
        TokenDeed::List => {
            let tokens = book.list()?;
            if flags.folder.json {
                let rows: Vec<_> = tokens.iter().map(row).collect();
                println!("{}", serde_json::to_string_pretty(&rows)?);
            } else {
                println!("{:<10} {:<9} {:>9} {:<14} NOTE", "ID", "STATE", "USES", "EXPIRES IN");
                for token in &tokens {
                    // Of a token without a limit some uses may not be written down yet.
                    let uses = token
                        .uses
                        .map_or_else(|| format!("≥{}", token.used), |uses| format!("{}/{uses}", token.used));
                    println!(
                        "{:<10} {:<9} {uses:>9} {:<14} {}",
                        token.id,
                        state(token),
                        ends(token),
                        token.note
                    );
                }
            }
        }
        TokenDeed::Revoke { id } => {
            book.revoke(&id)?;
            if flags.folder.json {
                println!("{}", json!({ "revoked": true }));
            } else {
                println!("revoked");
            }
        }
    }
    Ok(())
}

fn row(token: &TokenInfo) -> serde_json::Value {
    let expires = token.expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    json!({
        "id": token.id,
        "state": state(token),
        "used": token.used,
        "uses": token.uses,
        "expires": expires.map(|at| at.as_secs()),
        "note": token.note,
    })
}

fn ends(token: &TokenInfo) -> String {
    match token.expires.map(|at| at.duration_since(SystemTime::now())) {
        None => "never".into(),
        Some(Ok(left)) => node::in_words(left),
        Some(Err(_)) => "over".into(),
    }
}

fn state(token: &TokenInfo) -> &'static str {
    match token.state(SystemTime::now()) {
        TokenState::Valid => "valid",
        TokenState::Revoked => "revoked",
        TokenState::Expired => "expired",
        TokenState::UsedUp => "used up",
    }
}
