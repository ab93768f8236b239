//! Rows of a Parquet file, as Hugging Face publishes data sets.

use crate::error::EvalError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::path::Path;

pub(super) fn rows(path: &Path, file: File) -> Result<Vec<serde_json::Value>, EvalError> {
    let failed = |source| EvalError::Parquet { path: path.to_owned(), source };
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let rows = reader.get_row_iter(None).map_err(failed)?;
    rows.map(|row| row.map(|row| row.to_json_value()).map_err(failed)).collect()
}
