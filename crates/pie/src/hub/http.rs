//! Requests to a hub, with redirects, deadlines, and a token that only the hub itself sees.

use super::problem::{Code, Problem, RetryAdvice};
use super::wire::{Dialer, causes};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, PROXY_AUTHORIZATION, RANGE,
    RETRY_AFTER, USER_AGENT,
};
use hyper::http::request::Builder;
use hyper::http::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// An answer begins within this time.
const HEAD: Duration = Duration::from_secs(60);
/// A body that is silent for so long has ended.
const SILENCE: Duration = Duration::from_secs(60);
/// A hub sends to a store of its own, which may send on once or twice.
const REDIRECTS: usize = 6;
/// Longer answers in JSON are none of a hub's: a page of a tree has a thousand files.
const JSON_LIMIT: usize = 8 << 20;
/// Of a refusal's text so much is said.
const WORDS: usize = 200;

/// Asks a hub.
pub struct Client {
    dialer: Dialer,
    token: Option<HeaderValue>,
    endpoint: Uri,
}

/// An answer whose body is still to come.
pub struct HubResponse {
    response: Response<Incoming>,
    /// Who answers: the hub, or somebody it has sent us to.
    origin: String,
    is_hub: bool,
}

impl Client {
    /// Of the hub at an address, which sees the token.
    pub fn new(endpoint: &str, token: Option<HeaderValue>) -> Result<Self, Problem> {
        Ok(Self { dialer: Dialer::of_environment(), token, endpoint: parsed(endpoint)? })
    }

    /// Whether the hub can know who asks.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The file at an address from a byte on.
    ///
    /// # Errors
    /// Nobody answers, or not as a hub does. Refusals are answers.
    pub async fn get(&self, address: &str, from: u64) -> Result<HubResponse, Problem> {
        let mut at = parsed(address)?;
        let mut is_hub = origin(&at) == origin(&self.endpoint);
        for _ in 0..REDIRECTS {
            // Whoever the hub sends us to is not the hub, and neither is whom that one sends us to.
            let token = self.token.as_ref().filter(|_| is_hub);
            let response = self.once(&at, token, from).await?;
            if !response.status().is_redirection() {
                return Ok(HubResponse { response, origin: origin(&at), is_hub });
            }
            at = next(&at, response.headers())?;
            is_hub = is_hub && origin(&at) == origin(&self.endpoint);
        }
        Err(Problem::new(Code::Answer, format!("{address}: it sends on and on, more than {REDIRECTS} times")))
    }

    async fn once(
        &self,
        at: &Uri,
        token: Option<&HeaderValue>,
        from: u64,
    ) -> Result<Response<Incoming>, Problem> {
        let place = origin(at);
        let wire = self.dialer.dial(at).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire.stream))
            .await
            .map_err(|error| cut(&place, &causes(&error)))?;
        // It ends with the body, or when that is dropped.
        tokio::spawn(connection);
        let path = at.path_and_query().map_or("/", |path| path.as_str());
        let target = if wire.proxy.is_some() { at.to_string() } else { path.to_owned() };
        let mut request = Builder::new()
            .uri(target)
            .header(HOST, at.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("pie-pool/", env!("CARGO_PKG_VERSION")))
            // What is checked is the file, not what somebody made of it on the way.
            .header(ACCEPT_ENCODING, "identity");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(user) = wire.proxy.flatten() {
            request = request.header(PROXY_AUTHORIZATION, user);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| Problem::new(Code::Name, format!("{at} cannot be asked for: {error}")))?;
        match tokio::time::timeout(HEAD, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| cut(&place, &causes(&error))),
            Err(_) => Err(cut(&place, &format!("no answer within {} s", HEAD.as_secs()))),
        }
    }
}

impl HubResponse {
    /// What kind of answer.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A field in front of the body.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// The connection ends or falls silent before.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = match tokio::time::timeout(SILENCE, self.response.body_mut().frame()).await {
                Ok(Some(frame)) => frame.map_err(|error| cut(&self.origin, &causes(&error)))?,
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(cut(&self.origin, &format!("nothing came for {} s", SILENCE.as_secs())));
                }
            };
            // Other frames are trailers.
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    /// The whole body, which is short.
    ///
    /// # Errors
    /// The connection ends before, or it is no short one.
    pub async fn text(self) -> Result<String, Problem> {
        let origin = self.origin;
        let body = Limited::new(self.response.into_body(), JSON_LIMIT).collect();
        match tokio::time::timeout(SILENCE, body).await {
            Ok(Ok(body)) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Ok(Err(error)) => Err(cut(&origin, &causes(error.as_ref()))),
            Err(_) => Err(cut(&origin, &format!("no whole answer within {} s", SILENCE.as_secs()))),
        }
    }

    /// Why an answer is none that was wanted: `what` was asked for, and `page` is where people look it up.
    pub async fn refusal(self, what: &str, page: &str, has_token: bool) -> Problem {
        let (status, is_hub, origin) = (self.status(), self.is_hub, self.origin.clone());
        let kind = self.header("x-error-code").unwrap_or_default().to_owned();
        let after = self.header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.trim().parse().ok());
        let words = self.header("x-error-message").map(str::to_owned);
        let words = match words {
            Some(words) => words,
            None => self.text().await.ok().and_then(|text| said(&text)).unwrap_or_default(),
        };
        let words = plain(&words);
        let said = if words.is_empty() { status.to_string() } else { format!("{status}: {words}") };
        let is_missing = matches!(kind.as_str(), "RepoNotFound" | "RevisionNotFound" | "EntryNotFound");
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Problem {
                again: pause(after),
                ..Problem::passing(Code::Busy, format!("{origin} refuses {what} for now ({said})"))
            },
            _ if status.is_server_error() => Problem {
                again: pause(after),
                ..Problem::passing(Code::Busy, format!("{origin} fails with {what} ({said})"))
            },
            // Addresses of a hub's store hold for some minutes: the hub gives a new one.
            _ if !is_hub => Problem::passing(
                Code::Answer,
                format!("{origin}, where the hub sends for {what}, refuses it ({said})"),
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !is_missing => {
                denied(what, page, has_token, &said)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                let private = if has_token {
                    "the token that was given may not see it"
                } else {
                    "it is private (HF_TOKEN, --hub-token-file)"
                };
                let advice = format!("look at {page} for typing errors; or {private}");
                Problem::new(Code::NotFound, format!("{origin} has no {what} ({said}): {advice}"))
            }
            _ => Problem::new(
                Code::Answer,
                format!("{origin} refuses {what} ({said}): is it a hub? (HF_ENDPOINT, --hub-endpoint)"),
            ),
        }
    }
}

fn pause(seconds: Option<u64>) -> RetryAdvice {
    seconds.map_or(RetryAdvice::Soon, |seconds| RetryAdvice::After(Duration::from_secs(seconds)))
}

fn denied(what: &str, page: &str, has_token: bool, said: &str) -> Problem {
    let advice = if has_token {
        format!(
            "the token that was given is wrong or may not read it: accept its licence at {page}, and look at the token's rights"
        )
    } else {
        format!(
            "accept its licence at {page}, make a token that may read it, and give that in the environment's HF_TOKEN or in a file \
             (--hub-token-file FILE)"
        )
    };
    Problem::new(Code::Denied, format!("the hub does not give {what} to everybody ({said}): {advice}"))
}

/// The words of a refusal: hubs say them in JSON.
fn said(text: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    answer["error"].as_str().map(str::to_owned)
}

/// Foreign words in one short line, without what a terminal would take for more than letters.
fn plain(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).take(WORDS).collect::<String>().trim().to_owned()
}

fn cut(place: &str, why: &str) -> Problem {
    Problem::passing(Code::Cut, format!("the connection to {place} broke: {why}"))
}

fn parsed(address: &str) -> Result<Uri, Problem> {
    let uri: Option<Uri> = address.parse().ok();
    let is_one = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    uri.filter(is_one)
        .ok_or_else(|| Problem::new(Code::Answer, format!("{} is no address of a file", plain(address))))
}

/// Scheme, host and port: who it is that one talks to.
fn origin(address: &Uri) -> String {
    let scheme = address.scheme_str().unwrap_or_default();
    let host = address.host().unwrap_or_default().to_ascii_lowercase();
    match address.port_u16() {
        Some(port) if port != if scheme == "https" { 443 } else { 80 } => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    }
}

/// Where an answer sends us.
fn next(at: &Uri, headers: &HeaderMap) -> Result<Uri, Problem> {
    let place = origin(at);
    let wrong = |why: &str| Problem::new(Code::Answer, format!("{place} sends on, {why}"));
    let target = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| wrong("and does not say where to"))?;
    let authority = at.authority().map_or("", |authority| authority.as_str());
    let scheme = at.scheme_str().unwrap_or_default();
    let whole = if target.starts_with("http://") || target.starts_with("https://") {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{target}")
    };
    let next = parsed(&whole)?;
    if scheme == "https" && next.scheme_str() != Some("https") {
        return Err(wrong(
            "from https to an address that anybody on the way can read and change: not followed",
        ));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say_and_never_out_of_tls() {
        let table = [
            ("https://hub/a/b", "https://cdn/x?y=1", Some("https://cdn/x?y=1")),
            ("https://hub/a/b", "/c/d", Some("https://hub/c/d")),
            ("https://hub:8443/a/b", "c", Some("https://hub:8443/a/c")),
            ("https://hub/a/b", "//cdn/x", Some("https://cdn/x")),
            ("http://hub/a", "https://hub/a", Some("https://hub/a")),
            ("https://hub/a", "http://hub/a", None),
            ("https://hub/a", "ftp://hub/a", Some("https://hub/ftp://hub/a")),
        ];
        for (at, target, wanted) in table {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(target))]);
            let found = next(&parsed(at).expect(at), &headers).ok();
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), wanted, "{at} {target}");
        }
        assert!(
            next(&parsed("http://hub/a").expect("one"), &HeaderMap::new()).is_err(),
            "it does not say where to"
        );
    }

    #[test]
    fn who_answers_is_scheme_host_and_port() {
        let of = |address: &str| origin(&parsed(address).expect(address));
        assert_eq!(of("https://HUB/a"), of("https://hub:443/b"));
        for other in ["http://hub", "https://hub:444", "https://hub.example", "https://cdn"] {
            assert_ne!(of("https://hub"), of(other));
        }
    }

    #[test]
    fn foreign_words_cannot_draw_on_a_terminal() {
        assert_eq!(plain("\u{1b}[31mred\n\tline "), "[31mredline");
        assert_eq!(plain(&"x".repeat(1000)).len(), WORDS);
    }
}
