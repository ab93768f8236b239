//! Settings of the hub.

use super::problem::{Code, Problem};
use clap::Args;
use hyper::header::HeaderValue;
use hyper::http::Uri;
use std::path::{Path, PathBuf};

/// The hub that everybody means.
const PUBLIC: &str = "https://huggingface.co";
/// The token's variable, as the hub's own tools have it.
const TOKEN: &str = "HF_TOKEN";
/// A file with more is no token's.
const TOKEN_LIMIT: usize = 4096;

/// Where models that are named by a hub's places come from.
#[derive(Clone, Debug, Args)]
pub struct HubArgs {
    /// Use no network for models: what is named must be in the cache.
    #[arg(long, env = "PIE_OFFLINE", value_parser = yes_or_no)]
    pub offline: bool,
    /// File with a token of the hub, for models that it gives only to some. Without it the environment's HF_TOKEN.
    #[arg(long, env = "PIE_HUB_TOKEN_FILE", value_name = "FILE")]
    pub hub_token_file: Option<PathBuf>,
    /// Another hub that speaks as Hugging Face's does, or a mirror of it.
    #[arg(long, env = "HF_ENDPOINT", default_value = PUBLIC, value_name = "URL", hide_env_values = true)]
    pub hub_endpoint: String,
}

/// The same, checked.
pub struct HubSettings {
    /// Whether the network is to be left alone.
    pub offline: bool,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// What goes to the hub, and to nobody else.
    pub token: Option<HeaderValue>,
}

impl HubSettings {
    /// Reads the token once.
    ///
    /// # Errors
    /// The address is none, or the token.
    pub fn of(arguments: &HubArgs) -> Result<Self, Problem> {
        let endpoint = endpoint(&arguments.hub_endpoint)?;
        let token = token(arguments.hub_token_file.as_deref(), std::env::var(TOKEN).ok())?;
        let is_safe = may_carry_secrets(&endpoint);
        if token.is_some() && !is_safe {
            say!(
                "the hub's token is not used: {endpoint} is no https address, and whoever is on the way could read it"
            );
        }
        Ok(Self { offline: arguments.offline, token: token.filter(|_| is_safe), endpoint })
    }
}

/// What people write for yes and no in a variable; an empty one is as good as none.
fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<String, Problem> {
    // An empty variable is as good as none.
    let text = if text.trim().is_empty() { PUBLIC } else { text.trim().trim_end_matches('/') };
    let uri: Option<Uri> = text.parse().ok();
    let is_one = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    // It is said in errors: secrets have no place in it.
    let is_clean =
        uri.as_ref().and_then(Uri::authority).is_some_and(|authority| !authority.as_str().contains('@'));
    if is_one && is_clean {
        return Ok(text.to_owned());
    }
    let what = if is_one { "the hub's address has a user in it" } else { "the hub's address is none" };
    Err(Problem::new(
        Code::Name,
        format!(
            "{what}: write HF_ENDPOINT or --hub-endpoint as https://HOST, without user, password or query"
        ),
    ))
}

fn token(file: Option<&Path>, variable: Option<String>) -> Result<Option<HeaderValue>, Problem> {
    let (text, source) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Problem::new(
                    Code::Token,
                    format!("--hub-token-file {} cannot be read: {error}", path.display()),
                )
            })?;
            (text, path.display().to_string())
        }
        None => (variable.unwrap_or_default(), TOKEN.to_owned()),
    };
    let token = text.trim();
    if token.is_empty() {
        let nothing = Problem::new(
            Code::Token,
            format!("--hub-token-file {source} is empty: write the token into it, in one line"),
        );
        return if file.is_some() { Err(nothing) } else { Ok(None) };
    }
    let is_one = token.len() <= TOKEN_LIMIT && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| is_one);
    // What it holds is not said: it may be a secret all the same.
    let mut header = header.ok_or_else(|| {
        Problem::new(Code::Token, format!("{source} holds no token of a hub: one word, as the hub shows it"))
    })?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Tokens go over TLS, or stay on this machine.
fn may_carry_secrets(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("https") || is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_without_secrets() {
        for good in ["https://huggingface.co", "http://127.0.0.1:8080", "https://mirror.example/hf/"] {
            assert_eq!(endpoint(good).expect(good), good.trim_end_matches('/'));
        }
        assert_eq!(endpoint("").expect("none is given"), PUBLIC);
        for bad in ["huggingface.co", "ftp://x", "https://", "https://me:secret@x", "https://x?y=1"] {
            let problem = endpoint(bad).expect_err(bad).to_string();
            assert!(problem.contains("https://HOST") && !problem.contains("secret"), "{bad}: {problem}");
        }
    }

    #[test]
    fn yes_and_no_are_taken_as_people_write_them() {
        for (text, wanted) in
            [("1", true), ("True", true), ("on", true), ("", false), ("0", false), ("NO", false)]
        {
            assert_eq!(yes_or_no(text), Ok(wanted), "{text}");
        }
        assert!(yes_or_no("banana").is_err());
    }

    #[test]
    fn tokens_are_one_word_and_never_said() {
        let folder = tempfile::tempdir().expect("room");
        let file = |content: &str| {
            let path = folder.path().join("token");
            std::fs::write(&path, content).expect("room");
            path
        };
        let header =
            token(Some(&file("hf_secret\n")), Some("hf_other".to_owned())).expect("a token").expect("one");
        assert!(header == "Bearer hf_secret" && !format!("{header:?}").contains("secret"));
        let header = token(None, Some("hf_other".to_owned())).expect("a token").expect("one");
        assert!(header == "Bearer hf_other");
        assert!(
            token(None, None).expect("none").is_none()
                && token(None, Some(" ".to_owned())).expect("none").is_none()
        );
        for bad in ["", "two words", "hf_secret\nhf_secret", "hf_\u{7f}secret"] {
            let problem = token(Some(&file(bad)), None).expect_err(bad);
            assert!(problem.code == Code::Token && !problem.what.contains("secret"), "{problem}");
        }
        let problem = token(Some(&folder.path().join("nowhere")), None).expect_err("no file");
        assert!(problem.what.contains("cannot be read"), "{problem}");
    }

    #[test]
    fn tokens_do_not_travel_in_the_clear() {
        let table = [
            ("https://huggingface.co", true),
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://mirror.example", false),
            ("http://localhost.example", false),
        ];
        for (address, wanted) in table {
            assert_eq!(may_carry_secrets(address), wanted, "{address}");
        }
    }
}
