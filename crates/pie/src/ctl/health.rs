//! `pie ctl health`: whether a pool serves, and waiting until it does.

use super::caller::{CallOptions, CtlError, PoolCaller};
use super::show::{SERVING, Show};
use pie_client::ClientError;
use pie_proto::v1;
use std::time::Duration;
use tokio::time::Instant;

/// Looks again at this pace.
const LOOK: Duration = Duration::from_millis(200);
/// A look has this time, however little is left.
const SHORTEST: Duration = Duration::from_millis(200);
/// A pool that is there says in this time how it is; where it does not, another look may find another router.
const ANSWER: Duration = Duration::from_secs(5);

/// Succeeds when a group serves and takes new sessions; until then it looks again as long as it may, whatever is in the way: nobody
/// listens, somebody listens and is silent, no group is formed, all are drained.
pub async fn health(way: &CallOptions, wait: Duration, show: Show) -> Result<(), CtlError> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let longest = way.timeout.unwrap_or(ANSWER);
        let limit = if wait.is_zero() { longest } else { longest.min(left.max(SHORTEST)) };
        let answer = look(&CallOptions { timeout: Some(limit), ..way.clone() }).await;
        let why = match answer {
            Ok(groups) if groups.iter().any(takes_sessions) => {
                show.healthy(&groups);
                return Ok(());
            }
            Ok(groups) => {
                let text = format!("the pool does not serve: {}", states(&groups));
                CtlError::Other { code: "NOT_SERVING", text }
            }
            Err(error) => error,
        };
        if !passes(&why) || Instant::now() + LOOK >= until {
            return Err(why);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(way: &CallOptions) -> Result<Vec<v1::Group>, CtlError> {
    Ok(PoolCaller::connect(way.clone()).await?.describe().await?.groups)
}

/// Whether a group does what pools are for.
pub fn takes_sessions(group: &v1::Group) -> bool {
    group.state == SERVING && group.open
}

/// What is the matter with each group that does not take new sessions.
pub fn states(groups: &[v1::Group]) -> String {
    let of = |group: &v1::Group| match group.state.as_str() {
        SERVING if group.open => None,
        SERVING => Some(format!("group {0} is drained (`pie ctl uncordon {0}` opens it again)", group.group)),
        why => Some(format!("group {} is not formed: {why}", group.group)),
    };
    if groups.is_empty() {
        return "it has no groups".to_owned();
    }
    groups.iter().filter_map(of).collect::<Vec<_>>().join("; ")
}

/// Whether waiting may help.
fn passes(error: &CtlError) -> bool {
    use tonic::Code::{InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented};
    match error {
        CtlError::Client(ClientError::Refused(status)) => {
            !matches!(status.code(), InvalidArgument | PermissionDenied | Unauthenticated | Unimplemented)
        }
        CtlError::Client(ClientError::Connect { .. }) | CtlError::Silent { .. } | CtlError::Other { .. } => {
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_matter_is_said_of_each_group() {
        let group = |group: &str, state: &str, open| v1::Group {
            group: group.to_owned(),
            state: state.to_owned(),
            open,
            ..Default::default()
        };
        let cases = [
            (vec![], false, "no groups"),
            (vec![group("g0", "serving", true)], true, ""),
            (
                vec![group("g0", "serving", false), group("g1", "serving", false)],
                false,
                "pie ctl uncordon g1",
            ),
            (
                vec![group("g0", "rank 1 has another model", true)],
                false,
                "g0 is not formed: rank 1 has another model",
            ),
            (vec![group("g0", "serving", true), group("g1", "serving", false)], true, "group g1 is drained"),
        ];
        for (groups, serves, says) in cases {
            assert_eq!(groups.iter().any(takes_sessions), serves, "{groups:?}");
            assert!(states(&groups).contains(says), "{}", states(&groups));
        }
    }
}
