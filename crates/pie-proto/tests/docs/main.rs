//! The pages that are made of this crate: `docs/api.md` of the proto files' comments, `docs/errors.md` of the reasons. A page that
//! is not what they say fails here; `PIE_WRITE_DOCS=1 cargo test -p pie-proto --test docs` writes them.

mod api;
mod errors;

use std::path::Path;

/// Compares a page with what it should be, or writes it.
fn check(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("PIE_WRITE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("the page is written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(wanted.lines()).position(|(is, should)| is != should);
    assert!(
        page == wanted,
        "docs/{name} is not what its source says (first at line {}): PIE_WRITE_DOCS=1 cargo test -p pie-proto --test docs",
        differs.unwrap_or(page.lines().count().min(wanted.lines().count())) + 1
    );
}

#[test]
fn the_api_page_is_what_the_proto_files_say() {
    check("api.md", &api::page());
}

/// Each reason has its section, with the words of `pie explain`.
#[test]
fn the_errors_page_is_what_the_reasons_say() {
    let page = errors::page();
    for reason in pie_proto::Reason::ALL {
        assert!(page.contains(&format!("\n### {reason}\n")), "{reason} has no section");
    }
    check("errors.md", &page);
}
