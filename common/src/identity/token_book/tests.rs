//! Tokens over time, across processes, and when the book is damaged.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn make(book: &TokenBook, options: TokenOptions) -> JoinToken {
    book.create(Digest::of(b"ca"), options, now()).unwrap()
}

fn redeem(book: &TokenBook, token: &JoinToken, now: SystemTime) -> Result<(), TokenRefusal> {
    book.redeem(token.id(), token.secret(), now)
}

#[test]
fn tokens_outlive_the_process_and_their_secrets_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = TokenOptions { note: "zone \"a\"".to_owned(), ..TokenOptions::default() };
    let token = make(&TokenBook::open(dir.path()).unwrap(), options);
    let text = std::fs::read_to_string(dir.path().join("tokens.json")).unwrap();
    assert!(!text.contains(token.secret()));

    let book = TokenBook::open(dir.path()).unwrap();
    redeem(&book, &token, now() + 1000 * HOUR).unwrap();
    let listed = book.list().unwrap();
    assert_eq!((listed.len(), listed[0].note.as_str()), (1, "zone \"a\""));
    assert_eq!((listed[0].id.as_str(), listed[0].created), (token.id(), now()));
    assert_eq!(listed[0].state(now()), TokenState::Valid);
}

#[test]
fn a_wrong_secret_and_an_unknown_id_get_the_same_words() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let (one, two) = (make(&book, TokenOptions::default()), make(&book, TokenOptions::default()));
    book.revoke(two.id()).unwrap();
    for (id, secret) in [(one.id(), two.secret()), (two.id(), one.secret()), ("", ""), ("00", one.secret())] {
        assert!(matches!(book.redeem(id, secret, now()), Err(TokenRefusal::Unknown)), "{id}");
    }
}

#[test]
fn time_and_uses_run_out() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let short = make(&book, TokenOptions { expires_in: Some(HOUR), ..TokenOptions::default() });
    redeem(&book, &short, now() + HOUR - Duration::from_secs(1)).unwrap();
    assert!(matches!(redeem(&book, &short, now() + HOUR), Err(TokenRefusal::Expired)));
    let forever = make(&book, TokenOptions { expires_in: Some(Duration::MAX), ..TokenOptions::default() });
    redeem(&book, &forever, now() + 1_000_000 * HOUR).unwrap();

    let twice = make(&book, TokenOptions { uses: Some(2), ..TokenOptions::default() });
    redeem(&book, &twice, now()).unwrap();
    redeem(&TokenBook::open(dir.path()).unwrap(), &twice, now()).unwrap();
    assert!(matches!(redeem(&book, &twice, now()), Err(TokenRefusal::UsedUp)));
    assert_eq!(book.list().unwrap().last().unwrap().used, 2);
}

#[test]
fn a_limited_token_lets_in_no_more_than_it_says_when_many_ask_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let token = make(&book, TokenOptions { uses: Some(5), ..TokenOptions::default() });
    let opened: usize = std::thread::scope(|scope| {
        let ask = || (0..4).filter(|_| redeem(&book.clone(), &token, now()).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(opened, 5);
}

#[test]
fn what_another_process_makes_or_revokes_counts_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, command) = (TokenBook::open(dir.path()).unwrap(), TokenBook::open(dir.path()).unwrap());
    let (one, two) = (make(&command, TokenOptions::default()), make(&daemon, TokenOptions::default()));
    redeem(&daemon, &one, now()).unwrap();
    command.revoke(one.id()).unwrap();
    command.revoke(&format!("{two}\n")).unwrap();
    for token in [&one, &two] {
        assert!(matches!(redeem(&daemon, token, now()), Err(TokenRefusal::Revoked)));
    }
    let error = daemon.revoke(one.secret()).unwrap_err().to_string();
    assert!(error.contains("no join token") && !error.contains(one.secret()), "{error}");
}

#[test]
fn tokens_long_expired_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    make(&book, TokenOptions { expires_in: Some(HOUR), ..TokenOptions::default() });
    let later = now() + REMEMBERED + 2 * HOUR;
    let kept = book.create(Digest::of(b"ca"), TokenOptions::default(), later).unwrap();
    assert_eq!(book.list().unwrap().iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), [kept.id()]);
}

#[test]
fn a_damaged_book_is_named_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let token = make(&book, TokenOptions::default());
    std::fs::write(dir.path().join("tokens.json"), b"{\"tokens\": 7}").unwrap();
    assert!(TokenBook::open(dir.path()).unwrap_err().to_string().contains("tokens.json"));
    let refusal = redeem(&book, &token, now()).unwrap_err();
    assert!(matches!(refusal, TokenRefusal::Unavailable(_)) && !refusal.to_string().contains("tokens.json"));
}

#[test]
fn uses_without_a_limit_are_counted_when_they_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let token = make(&book, TokenOptions::default());
    let used = || book.list().unwrap()[0].used;
    for _ in 0..3 {
        redeem(&book, &token, now()).unwrap();
    }
    assert_eq!(used(), 0);
    book.flush().unwrap();
    book.flush().unwrap();
    redeem(&book, &token, now()).unwrap();
    assert_eq!(used(), 3, "a lower bound");
}

#[test]
fn a_token_in_words_opens_for_our_ca_unless_the_book_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let token = JoinToken::random(Digest::of(b"ca"));
    let open = |ours: bool| book.redeem_or_plain((token.id(), token.secret()), |_| ours, now());
    assert!(matches!(open(true), Err(TokenRefusal::Unknown)));
    files::write_secret(&dir.path().join(PLAIN), format!("{token}\n").as_bytes()).unwrap();
    open(true).unwrap();
    assert!(matches!(open(false), Err(TokenRefusal::Unknown)), "of another cluster");
    assert!(matches!(
        book.redeem_or_plain((token.id(), "other"), |_| true, now()),
        Err(TokenRefusal::Unknown)
    ));

    // A copy of a token that the book knows as well.
    let known = make(&book, TokenOptions::default());
    files::write_secret(&dir.path().join(PLAIN), known.to_string().as_bytes()).unwrap();
    book.revoke(known.id()).unwrap();
    let refused = book.redeem_or_plain((known.id(), known.secret()), |_| true, now());
    assert!(matches!(refused, Err(TokenRefusal::Revoked)));
}
