//! Why a model does not come from a hub: a stable code, and a sentence that says what, where, and what to do.

use std::path::Path;
use std::time::Duration;

/// What kind of problem it is. Scripts may rely on the names; `pie explain` has the advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The name means no place.
    Name,
    /// It is not in the cache, and the network is not to be used.
    Offline,
    /// Nobody answers.
    Unreachable,
    /// The hub lets only some have it.
    Denied,
    /// The token cannot be used.
    Token,
    /// There is no such repository, revision or file.
    NotFound,
    /// What is there is no model that pie-pool loads.
    NoModel,
    /// The hub has too much to do.
    Busy,
    /// What answers does not speak as a hub does.
    Answer,
    /// The connection ends again and again.
    Cut,
    /// The content is not what the hub's checksum says.
    WrongBytes,
    /// The cache cannot be written.
    Disk,
    /// Another process has the model's lock, and does nothing.
    Locked,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Name,
        Self::Offline,
        Self::Unreachable,
        Self::Denied,
        Self::Token,
        Self::NotFound,
        Self::NoModel,
        Self::Busy,
        Self::Answer,
        Self::Cut,
        Self::WrongBytes,
        Self::Disk,
        Self::Locked,
    ];

    /// The name that stays.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "HUB_NAME",
            Self::Offline => "HUB_OFFLINE",
            Self::Unreachable => "HUB_UNREACHABLE",
            Self::Denied => "HUB_DENIED",
            Self::Token => "HUB_TOKEN",
            Self::NotFound => "HUB_NOT_FOUND",
            Self::NoModel => "HUB_NO_MODEL",
            Self::Busy => "HUB_BUSY",
            Self::Answer => "HUB_ANSWER",
            Self::Cut => "HUB_CUT",
            Self::WrongBytes => "HUB_WRONG_BYTES",
            Self::Disk => "HUB_DISK",
            Self::Locked => "HUB_LOCKED",
        }
    }

    /// What it means and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Name => {
                "The name stands for no model. Write hf:OWNER/NAME, hf:OWNER/NAME/FILE.gguf, a short name (`pie model list --names`), \
                 or the path of a folder."
            }
            Self::Offline => {
                "The model is not whole in the cache, and --offline (PIE_OFFLINE) keeps the network out of it. Fetch it where there is \
                 a network (`pie model fetch NAME`), and copy the folder that the error names; or give --model a folder."
            }
            Self::Unreachable => {
                "No connection to the hub came about. Look at the network, at HTTPS_PROXY and NO_PROXY, at SSL_CERT_FILE where a proxy \
                 has certificates of its own, and at HF_ENDPOINT; or copy the files to where the error says."
            }
            Self::Denied => {
                "The hub gives this model only to some. Accept its licence on its page, make a token that may read it, and give that in \
                 HF_TOKEN or by --hub-token-file."
            }
            Self::Token => {
                "The token's file cannot be read, or holds what is no token: one line, as the hub shows it."
            }
            Self::NotFound => {
                "The hub has no such repository, revision or file. Look for typing errors; private repositories look like this without \
                 a token, too."
            }
            Self::NoModel => {
                "The repository has no files that pie-pool loads: config.json with *.safetensors, or GGUF files, of which one is to \
                 be named (hf:OWNER/NAME/FILE.gguf)."
            }
            Self::Busy => {
                "The hub refuses for now: too many requests, or it has failures of its own. Wait, and give the command again: it goes \
                 on where it was. With a token the hub allows more."
            }
            Self::Answer => {
                "What answers is no hub, or one of another make. Look at HF_ENDPOINT, and whether a proxy or a login page answers in \
                 its place."
            }
            Self::Cut => {
                "The connection ended, or fell silent, several times without getting on. What was fetched is kept: give the command \
                 again."
            }
            Self::WrongBytes => {
                "The file that came is not the one that the hub has by its checksum. It was thrown away. A proxy or a mirror may \
                 change content: fetch again, from another place if it stays so."
            }
            Self::Disk => {
                "The cache cannot be written. Make room (`pie model list`, `pie model remove NAME`), or set XDG_CACHE_HOME to a folder \
                 on a larger disk."
            }
            Self::Locked => {
                "Another process is fetching the same model and has not got on for minutes. End that one, and give the command again."
            }
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether it is worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAdvice {
    /// It would be the same.
    Never,
    /// It may pass.
    Soon,
    /// The hub says when.
    After(Duration),
}

/// A problem with a hub or its cache.
#[derive(Debug, thiserror::Error)]
#[error("{what} ({code})")]
pub struct Problem {
    /// Which one.
    pub code: Code,
    /// What was wrong, where, what to do.
    pub what: String,
    /// Whether it may pass.
    pub again: RetryAdvice,
}

impl Problem {
    /// One that stays.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), again: RetryAdvice::Never }
    }

    /// One that may pass.
    pub fn passing(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), again: RetryAdvice::Soon }
    }

    /// The cache cannot be used as it should; `doing` is what was tried.
    pub fn disk(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "; what was fetched is kept: make room (`pie model list`, `pie model remove NAME`) and give the command again, or set \
                 XDG_CACHE_HOME to a folder on a larger disk"
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "; set XDG_CACHE_HOME to a folder that may be written"
            }
            _ => "",
        };
        Self::new(Code::Disk, format!("cannot {doing} {}: {error}{advice}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_stands_in_the_page_about_models() {
        let page = include_str!("../../../../docs/hub.md");
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(Code::ALL[..index].iter().all(|other| other.as_str() != code.as_str()), "{code}");
            assert!(page.contains(&format!("| `{code}` |")), "docs/hub.md has no row of {code}");
            assert!(!code.advice().is_empty());
        }
    }
}
