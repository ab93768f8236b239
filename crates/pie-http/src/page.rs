//! The page at `/`: an editor, and beside it what each keystroke did to the cache. It is for showing what the pool is about; it asks for
//! nothing that other editors cannot ask for. `editors/page` is what its files are made of.

use crate::app::App;
use crate::stats::Route;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::routing::get;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Whether a front has the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageVisibility {
    /// At `/`.
    Shown,
    /// There is nothing at `/`.
    #[default]
    Hidden,
}

/// Scripts come from here alone, and nobody frames it. The editor makes its style rules as it runs: they have no address.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $kind:literal) => {
        Asset { name: $name, kind: $kind, bytes: include_bytes!(concat!("../page/", $name)) }
    };
}

const INDEX: Asset = asset!("index.html", "text/html; charset=utf-8");

/// What [`INDEX`] asks for, and the licences of what is in it.
const ASSETS: [Asset; 4] = [
    asset!("page.js", "text/javascript; charset=utf-8"),
    asset!("page.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("licences.txt", "text/plain; charset=utf-8"),
];

impl PageVisibility {
    /// Its routes, if it is shown.
    pub(crate) fn routes(self) -> Router<Arc<App>> {
        match self {
            Self::Shown => Router::new().route("/", get(index)).route("/page/{name}", get(named)),
            Self::Hidden => Router::new(),
        }
    }
}

/// `GET /`
async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    told(&app, &INDEX, &headers)
}

/// `GET /page/NAME`
async fn named(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response<Body> {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => told(&app, asset, &headers),
        None => crate::serve::nothing(State(app), uri).await,
    }
}

fn told(app: &App, asset: &Asset, headers: &HeaderMap) -> Response<Body> {
    app.stated(Route::Other, asset.answer(headers))
}

impl Asset {
    /// Itself, or that the client has it already. Names stay when the pool is replaced, so that clients ask each time.
    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let tag = format!("\"{:016x}\"", xxh3_64(self.bytes));
        let is_held = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|held| held.to_str().ok())
            .flat_map(|held| held.split(','))
            .any(|held| held.trim().trim_start_matches("W/") == tag);
        let mut answer = if is_held {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            Response::new(Body::from(self.bytes))
        };
        let fixed = [
            (CONTENT_TYPE, self.kind),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
        ];
        let members = answer.headers_mut();
        for (name, value) in fixed {
            members.insert(name, HeaderValue::from_static(value));
        }
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            members.insert(ETAG, tag);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_asks_for_is_there_and_it_is_small() {
        let index = std::str::from_utf8(INDEX.bytes).expect("text");
        let asked: Vec<_> = index.split('"').filter_map(|part| part.strip_prefix("/page/")).collect();
        assert!(asked.len() >= 3, "{asked:?}");
        for name in asked {
            assert!(ASSETS.iter().any(|asset| asset.name == name), "{name}");
        }
        assert!(
            !index.contains("<style") && !index.contains("style=") && !index.contains("<script>"),
            "inline"
        );
        let bytes: usize = ASSETS.iter().chain([&INDEX]).map(|asset| asset.bytes.len()).sum();
        assert!(bytes < 500_000, "{bytes} bytes");
    }

    #[test]
    fn who_has_a_file_is_not_sent_it_again() {
        let first = INDEX.answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(INDEX.answer(&headers).status(), StatusCode::NOT_MODIFIED);
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("\"another\""));
        let again = INDEX.answer(&headers);
        assert_eq!(again.status(), StatusCode::OK);
        assert!(
            again.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .expect("text")
                .contains("frame-ancestors 'none'")
        );
    }
}
