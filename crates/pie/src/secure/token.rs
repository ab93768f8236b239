//! `pie token`: a random token, and its entry for the tokens file.

use super::args::TokenArgs;
use crate::Failure;
use pie_group::tenants::Tenant;
use pie_router::auth;
use std::time::SystemTime;

/// What scanners for leaked secrets can look for.
const PREFIX: &str = "pie_";
const RANDOM_BYTES: usize = 32;

/// Prints a new token, and below it its entry for the tokens file, which has only its hash.
pub fn run(arguments: &TokenArgs) -> Result<(), Failure> {
    let tenant = Tenant::new(&arguments.tenant).map_err(|fault| format!("--tenant: {}", fault.message))?;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let token = format!("{PREFIX}{}", hex::encode(random));
    outln!("{token}\n\n[[token]]\ntenant = {}", toml::Value::from(tenant.as_str()));
    outln!("sha256 = \"{}\"", auth::hash(&token));
    if arguments.admin {
        outln!("admin = true");
    }
    if let Some(expires) = &arguments.expires {
        outln!("expires = \"{}\"", humantime::format_rfc3339_seconds(moment(expires)?));
    }
    Ok(())
}

fn moment(text: &str) -> Result<SystemTime, Failure> {
    let from_now = humantime::parse_duration(text).ok().and_then(|time| SystemTime::now().checked_add(time));
    let moment = from_now.map_or_else(|| humantime::parse_rfc3339(text), Ok);
    Ok(moment.map_err(|_| {
        format!("--expires {text}: give a time from now, as 30d, or a moment in UTC, as 2027-01-01T00:00:00Z")
    })?)
}
