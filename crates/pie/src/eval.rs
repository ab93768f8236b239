//! `pie eval`: the paper's tables and figures, for any model and data. What it does is in `pie-eval`.

pub mod args;

use self::args::{EvalArgs, EvalCommand, EvalRunArgs};
use crate::models::{self, ModelKind};
use crate::{Failure, progress};
use pie_eval::names::Spot;
use pie_eval::{EvaluationOptions, GitSource, Progress};
use std::path::Path;

/// Evaluates, or draws the pages of results that are there.
pub fn run(arguments: EvalArgs) -> Result<(), Failure> {
    match arguments.command {
        Some(EvalCommand::Report { folder }) => report(&folder),
        None => evaluate(arguments.run),
    }
}

fn evaluate(arguments: EvalRunArgs) -> Result<(), Failure> {
    if arguments.threads > 0 {
        crate::worker::set_threads(arguments.threads)?;
    }
    let folder = models::resolve(&arguments.model)?;
    if folder.kind == ModelKind::Seeded {
        say!("the seeded model writes noise: times are real, EM and ES are not; give --model");
    }
    if arguments.git.is_some() && !arguments.spots.contains(&Spot::Git) {
        return Err("--git has no use where --spots has no `git`".into());
    }
    let out = arguments.out;
    let options = EvaluationOptions {
        model: folder.path,
        data: arguments.data,
        out: out.clone(),
        context: arguments.context,
        samples: arguments.samples,
        languages: arguments.languages,
        settings: arguments.settings,
        tasks: arguments.tasks,
        seeds: arguments.seeds,
        methods: arguments.methods,
        timed_samples: arguments.timed_samples,
        compared_samples: arguments.kl_samples,
        accumulated_samples: arguments.accumulated_samples,
        edits: arguments.edits,
        arms: arguments.arms,
        storages: arguments.storages,
        spots: arguments.spots,
        git: arguments.git.map(|repository| GitSource { repository, under: arguments.git_under }),
        idle: arguments.idle,
        window: arguments.window,
        window_samples: arguments.window_samples,
        windows: arguments.windows,
    };
    let loading = progress::bytes("loading the model");
    let running = progress::cases("evaluating");
    let ended = pie_eval::run(&options, &mut |state| match state {
        Progress::Loading(done, total) => progress::show(&loading, done, total),
        Progress::Running(done, total) => {
            loading.finish_and_clear();
            progress::show(&running, done, total);
        }
    });
    running.finish_and_clear();
    ended?;
    report(&out)
}

fn report(folder: &Path) -> Result<(), Failure> {
    for path in pie_eval::report::write(folder)? {
        outln!("{}", path.display());
    }
    Ok(())
}
