//! What fuzz targets share: texts from arbitrary bytes, and documents written the slow and obvious way.

pub mod naive;
#[path = "../../crates/pie-text/tests/common/pairs.rs"]
pub mod pairs;
pub mod texts;

/// Sends panics of a place that may not panic to the fuzzer, and its errors through the text that users would see.
pub fn explained<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            None
        }
    }
}
