//! `pie explain`: what an error's reason means.

use crate::Failure;
use crate::cli::ExplainArgs;
use crate::hub::problem::Code;
use pie_proto::Reason;

/// Prints what an error means and what to do.
pub fn run(arguments: ExplainArgs) -> Result<(), Failure> {
    let Some(wanted) = arguments.reason else {
        for reason in Reason::ALL {
            outln!("{reason:<20} {:?}", reason.code());
        }
        for code in Code::ALL {
            outln!("{code:<20} models of a hub");
        }
        return Ok(());
    };
    if let Some(code) = Code::ALL.iter().find(|code| code.as_str().eq_ignore_ascii_case(&wanted)) {
        outln!("{code} (of this program itself, about models of a hub)\n\n{}", code.advice());
        return Ok(());
    }
    let Some(reason) = Reason::of(&wanted.to_uppercase()) else {
        let similar = |reason: &&Reason| strsim::jaro_winkler(reason.as_str(), &wanted.to_uppercase());
        let nearest = Reason::ALL.iter().max_by(|a, b| similar(a).total_cmp(&similar(b)));
        let nearest = nearest.map(|reason| format!(": did you mean {reason}?")).unwrap_or_default();
        return Err(format!("there is no reason `{wanted}`{nearest} (`pie explain` lists all)").into());
    };
    outln!("{reason} (gRPC {:?})\n\n{}", reason.code(), reason.advice());
    Ok(())
}
