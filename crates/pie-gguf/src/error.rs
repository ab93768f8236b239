//! What can be wrong with a GGUF file.

/// Why a file is not read. Whoever opened it adds its path.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It does not begin as GGUF files do.
    #[error("it is no GGUF file: it begins with {0:02x?}, not with \"GGUF\"")]
    Magic([u8; 4]),
    /// A version that nobody writes any more, or does not write yet.
    #[error("GGUF version {0}; versions 2 and 3 are read")]
    Version(u32),
    /// A length, a type or a text that cannot be.
    #[error("{what} at byte {at}: the file is damaged or cut off; download or copy it again")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Where it was found.
        at: u64,
    },
    /// A setting that is needed and not there, or of another type.
    #[error("its setting {key} is missing, or is no {expected}")]
    Setting {
        /// Its name.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
}
