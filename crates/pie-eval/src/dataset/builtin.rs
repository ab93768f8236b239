//! The data that ships: RepoBench-C's form, from freely licensed packages (`data/README.md`).

use super::{FileFormat, SampleFile};
use crate::names::{Language, Setting};

macro_rules! shipped {
    ($language:ident, $setting:ident, $file:literal) => {
        SampleFile {
            language: Language::$language,
            setting: Setting::$setting,
            path: $file.into(),
            content: FileFormat::Shipped(include_bytes!(concat!("../../data/", $file))),
        }
    };
}

pub(super) fn sources() -> Vec<SampleFile> {
    vec![
        shipped!(Python, CrossFileFirst, "python_cross_file_first.jsonl.gz"),
        shipped!(Python, CrossFileRandom, "python_cross_file_random.jsonl.gz"),
        shipped!(Python, InFile, "python_in_file.jsonl.gz"),
        shipped!(Java, CrossFileFirst, "java_cross_file_first.jsonl.gz"),
        shipped!(Java, CrossFileRandom, "java_cross_file_random.jsonl.gz"),
        shipped!(Java, InFile, "java_in_file.jsonl.gz"),
    ]
}
