//! The tokens file: what it may say, and whose a token is.

use pie_group::tenants::Role;
use pie_proto::Reason;
use pie_router::auth::{AccessTokens, hash};
use std::time::{Duration, SystemTime};

const NOW: u64 = 1_800_000_000; // 2027-01-15

fn entry(tenant: &str, token: &str, more: &str) -> String {
    format!("[[token]]\ntenant = \"{tenant}\"\nsha256 = \"{}\"\n{more}\n", hash(token))
}

#[test]
fn a_token_says_whose_call_it_is() {
    // Of SHA-256's own specification.
    assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let text = [
        entry("acme", "one", ""),
        entry("acme", "two", "admin = true"),
        entry("other", "three", "expires = \"2027-01-15T08:00:01Z\""),
        entry("other", "four", "expires = 2027-01-15T08:00:00Z"),
        "[tenant.acme]\nsessions = 3\n".to_owned(),
    ]
    .concat();
    let tokens = AccessTokens::parse(&text.replace("ab", "AB")).expect("it is right");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let cases = [
        ("one", Ok(("acme", Role::User))),
        ("two", Ok(("acme", Role::Admin))),
        ("three", Ok(("other", Role::User))),
        ("four", Err(Reason::TokenExpired)),
        ("One", Err(Reason::BadToken)),
        ("one ", Err(Reason::BadToken)),
        ("", Err(Reason::BadToken)),
    ];
    for (token, wanted) in cases {
        let found = tokens.caller(token.as_bytes(), now);
        let found = found.as_ref().map(|caller| (caller.tenant.as_str(), caller.role));
        assert_eq!(found.map_err(|fault| fault.reason), wanted, "{token:?}");
    }
}

#[test]
fn what_is_wrong_with_the_file_is_said() {
    let (one, two) = (entry("acme", "one", ""), entry("acme", "two", ""));
    let cases = [
        (String::new(), "nobody could call"),
        ("[tenant.acme]\nsessions = 3".to_owned(), "nobody could call"),
        (format!("{one}\n= 3"), "line 6"),
        (format!("{one}colour = 1"), "unknown field `colour`"),
        (format!("{one}[tenant.acme]\nsession = 1"), "unknown field `session`"),
        (format!("{one}[tenant.acme]\nsessions = -1"), "line 6"),
        (format!("{one}[tenant.\"a b\"]\n"), "visible ASCII"),
        (one.replace("acme", ""), "visible ASCII"),
        (format!("{two}{one}{two}"), "[[token]] 3 (tenant \"acme\"): an entry before it"),
        ("[[token]]\ntenant = \"a\"\nsha256 = \"secret\"".to_owned(), "64 hexadecimal digits"),
        (format!("{one}expires = \"tomorrow\""), "a moment in UTC"),
        (format!("{one}expires = \"2027-01-01T00:00:00+01:00\""), "a moment in UTC"),
        (format!("{one}expires = 2027-01-01"), "a moment in UTC"),
        (format!("{one}expires = 3"), "a moment in UTC"),
        ("[[token]]\ntenant = \"a\"".to_owned(), "missing field `sha256`"),
    ];
    for (text, wanted) in cases {
        let found = AccessTokens::parse(&text).map(drop).expect_err(&text).to_string();
        assert!(found.contains(wanted) && !found.contains("secret"), "{text}\n{found}");
    }
}
