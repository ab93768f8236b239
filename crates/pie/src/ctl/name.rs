//! Names of sessions on the command line: a file's session has the file's whole path, so that two files are never one session.

use super::caller::{CtlError, PoolCaller, Wait};
use pie_client::ClientError;
use pie_proto::{Reason, v1};
use std::path::{Path, PathBuf};

/// Bytes of a session's name, as docs/api.md has it.
const LONGEST: usize = 256;

fn whole(path: &Path) -> std::io::Result<PathBuf> {
    // A file that is gone has no links to follow.
    path.canonicalize().or_else(|_| std::path::absolute(path))
}

/// The name of a file's session; nothing for standard input, and then the pool chooses one.
///
/// # Errors
/// The path can be no name.
pub fn of_file(file: &Path) -> Result<String, CtlError> {
    if file == Path::new("-") {
        return Ok(String::new());
    }
    let path = whole(file).map_err(|source| CtlError::File { path: file.to_owned(), source })?;
    let wrong = match path.to_str() {
        Some(name) if name.len() <= LONGEST => return Ok(name.to_owned()),
        Some(name) => format!("has {} bytes, and {LONGEST} are the most of a name", name.len()),
        None => "is not UTF-8".to_owned(),
    };
    let text = format!(
        "the session would be named by the path {}, which {wrong}: give --session NAME",
        path.display()
    );
    Err(CtlError::Other { code: "BAD_NAME", text })
}

/// The session that is meant: the one of this name, else that of the file, else the only one whose path ends so.
///
/// # Errors
/// There is none, or several may be meant.
pub async fn resolve(caller: &PoolCaller, given: &str) -> Result<v1::Session, CtlError> {
    let unknown = match get(caller, given).await {
        Err(CtlError::Client(ClientError::Refused(status))) if is_unknown(&status) => status,
        answer => return answer,
    };
    if let Ok(path) = of_file(Path::new(given))
        && path != given
    {
        match get(caller, &path).await {
            Err(CtlError::Client(ClientError::Refused(status))) if is_unknown(&status) => {}
            answer => return answer,
        }
    }
    let sessions = caller.ask(Wait::Answer, "list the sessions", caller.pool().sessions()).await?;
    let mut meant = meant(&sessions, given);
    match meant.len() {
        0 => Err(ClientError::Refused(unknown).into()),
        1 => Ok(meant.remove(0).clone()),
        _ => {
            let names: Vec<_> = meant.iter().map(|session| session.session.as_str()).collect();
            let text = format!("`{given}` may be {}: name more of the path", names.join(", or "));
            Err(CtlError::Other { code: "AMBIGUOUS_NAME", text })
        }
    }
}

/// Calls with the name as it is given; where there is none, with that of the session that is meant.
///
/// # Errors
/// As [`resolve`], and the call's.
pub async fn meant_by<T>(
    caller: &PoolCaller,
    given: &str,
    call: impl AsyncFn(String) -> Result<T, CtlError>,
) -> Result<T, CtlError> {
    match call(given.to_owned()).await {
        Err(CtlError::Client(ClientError::Refused(status))) if is_unknown(&status) => {
            call(resolve(caller, given).await?.session).await
        }
        answer => answer,
    }
}

fn is_unknown(status: &tonic::Status) -> bool {
    pie_proto::reason::reason_of(status) == Some(Reason::SessionUnknown)
}

async fn get(caller: &PoolCaller, session: &str) -> Result<v1::Session, CtlError> {
    let request = v1::GetSessionRequest { session: session.to_owned(), ..Default::default() };
    let mut wire = caller.pool().wire();
    let answer = caller.call(Wait::Answer, "look at the session", wire.get_session(request)).await?;
    Ok(answer.session.unwrap_or_else(|| v1::Session { session: session.to_owned(), ..Default::default() }))
}

/// Sessions of paths that end with the given one.
fn meant<'a>(sessions: &'a [v1::Session], given: &str) -> Vec<&'a v1::Session> {
    let given = Path::new(given);
    let ends = |session: &&v1::Session| {
        let path = Path::new(&session.session);
        path.is_absolute() && path.ends_with(given) && given.file_name().is_some()
    };
    sessions.iter().filter(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_named_by_paths_and_found_by_what_is_clear_of_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names = ["a/mod.rs", "b/mod.rs", "main.rs"].map(|name| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            std::fs::write(&path, name).expect("it is written");
            of_file(&path).expect("a name")
        });
        assert!(names[0] != names[1] && names.iter().all(|name| Path::new(name).is_absolute()), "{names:?}");
        let other = of_file(&folder.path().join("b/../a/./mod.rs")).expect("a name");
        assert_eq!(other, names[0], "one file, one name");
        assert_eq!(of_file(Path::new("-")).expect("a name"), "", "the pool chooses");
        let long = of_file(&folder.path().join("x".repeat(300))).expect_err("too long").to_string();
        assert!(long.contains("--session NAME"), "{long}");

        let session = |name: &String| v1::Session { session: name.clone(), ..Default::default() };
        let sessions: Vec<_> =
            names.iter().map(session).chain([session(&"given/mod.rs".to_owned())]).collect();
        let cases = [("mod.rs", 2), ("a/mod.rs", 1), ("main.rs", 1), ("ain.rs", 0), ("", 0), ("c/mod.rs", 0)];
        for (given, count) in cases {
            assert_eq!(meant(&sessions, given).len(), count, "{given}");
        }
    }
}
