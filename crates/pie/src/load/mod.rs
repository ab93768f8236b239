//! `pie load`: edit streams against a pool, measured. What it does is in `pie-load`.

pub mod args;

use crate::signals::Signals;
use crate::{Failure, progress};
use args::{GenerateArgs, KneeArgs, LoadArgs, LoadCommand, PeopleArgs, RunArgs, ScriptArgs};
use pie_load::people::{Corpus, Habits, Replay};
use pie_load::report::{self, Knee, LoadReport};
use pie_load::run::{CompletionTrigger, EditStreamSource, Options, RunSnapshot, Stop, Tempo};
use pie_load::script;
use pie_load::target::{LoadTarget, OpenAi};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A run that is cut short has closed its sessions by then.
const GRACE: Duration = Duration::from_secs(60);

/// Plays streams at a server, or makes, compares and shows what others need.
pub async fn run(arguments: LoadArgs) -> Result<(), Failure> {
    match arguments.command {
        None => once(arguments.run).await,
        Some(LoadCommand::Run(arguments)) => once(arguments).await,
        Some(LoadCommand::Knee(arguments)) => knee(arguments).await,
        Some(LoadCommand::Compare { a, b }) => {
            out!("{}", report::compare(&report::read::<LoadReport>(&a)?, &report::read(&b)?));
            Ok(())
        }
        Some(LoadCommand::Generate(arguments)) => generate(&arguments),
        Some(LoadCommand::Script(arguments)) => replay(arguments),
    }
}

async fn once(arguments: RunArgs) -> Result<(), Failure> {
    let source = source(&arguments)?;
    let mut signals = Signals::listen(GRACE)?;
    let report = measure(&arguments, tempo(&arguments), &source, &mut signals).await?;
    out!("{}", report::text(&report));
    written(arguments.json.as_deref(), || report::json(&report))?;
    written(arguments.html.as_deref(), || report::page(&report))?;
    whole([&report])?;
    verified(&arguments, [&report])
}

async fn knee(arguments: KneeArgs) -> Result<(), Failure> {
    let KneeArgs { mut rates, run: arguments } = arguments;
    rates.sort_by(f64::total_cmp);
    let source = source(&arguments)?;
    let mut signals = Signals::listen(GRACE)?;
    let mut runs: Vec<LoadReport> = Vec::new();
    for rate in rates {
        say!("{rate} edits/s");
        runs.push(measure(&arguments, Tempo::Rate(rate), &source, &mut signals).await?);
        if whole(&runs).is_err() {
            break;
        }
    }
    let knee = Knee { runs };
    out!("{}", report::knee_text(&knee));
    written(arguments.json.as_deref(), || report::json(&knee))?;
    written(arguments.html.as_deref(), || report::knee_page(&knee))?;
    whole(&knee.runs)?;
    verified(&arguments, &knee.runs)
}

fn tempo(arguments: &RunArgs) -> Tempo {
    arguments.rate.map_or(Tempo::Speed(arguments.speed), Tempo::Rate)
}

/// Fails for runs that were cut short: their figures are not what was asked for.
fn whole<'a>(reports: impl IntoIterator<Item = &'a LoadReport>) -> Result<(), Failure> {
    match reports.into_iter().find(|report| report.facts.interrupted) {
        Some(report) => {
            let seconds = report.facts.duration_s;
            Err(format!("interrupted: the sessions are closed, and the figures are of {seconds:.1} s").into())
        }
        None => Ok(()),
    }
}

async fn target(arguments: &RunArgs) -> Result<LoadTarget, Failure> {
    Ok(match &arguments.openai {
        Some(url) => LoadTarget::OpenAi(Box::new(OpenAi::new(url, &arguments.openai_model)?)),
        None => {
            let (sessions, tenants) = (arguments.sessions as usize, arguments.tenants as usize);
            let access = &arguments.access;
            LoadTarget::pool(&access.url(&arguments.pool), &access.open()?, sessions, tenants).await?
        }
    })
}

async fn measure(
    arguments: &RunArgs,
    tempo: Tempo,
    source: &EditStreamSource,
    signals: &mut Signals,
) -> Result<LoadReport, Failure> {
    let options = Options {
        sessions: arguments.sessions as usize,
        tempo,
        warmup: arguments.warmup,
        duration: arguments.duration,
        drain: arguments.drain,
        tokens: arguments.tokens,
        limit: arguments.limit,
        asking: if arguments.storm {
            CompletionTrigger::EveryKeystroke
        } else {
            CompletionTrigger::AsWritten
        },
        place: arguments.people.at.map(Into::into),
        mode: arguments.people.mode.map(Into::into),
        strategy: arguments.strategy.into(),
        compare: arguments.verify,
        process: arguments.pid,
    };
    let bar = progress::seconds("opening documents");
    let shown = bar.clone();
    let mut watch = |snapshot: &RunSnapshot| {
        bar.set_message(line(snapshot));
        progress::show(&bar, snapshot.elapsed.as_secs(), snapshot.total.as_secs());
    };
    let (stopper, stop) = Stop::new();
    let report = {
        let running = async {
            let target = target(arguments).await?;
            Ok(pie_load::run::run_until(&options, source, &target, &mut watch, stop).await?)
        };
        tokio::pin!(running);
        loop {
            tokio::select! {
                report = &mut running => break report,
                signal = signals.next() => match stopper.stop() {
                    true => shown.suspend(|| say!("{signal}: closing the sessions; another signal leaves them open")),
                    false => break Err("stopped at once: sessions of the run may still be open".into()),
                },
            }
        }
    };
    bar.finish_and_clear();
    report
}

fn line(snapshot: &RunSnapshot) -> String {
    let millis = |time: Option<std::time::Duration>| {
        time.map_or("-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
    };
    format!(
        "{} edits, {} first tokens, p50 {}, p99 {}, {} errors",
        snapshot.edits,
        snapshot.answers,
        millis(snapshot.p50),
        millis(snapshot.p99),
        snapshot.errors
    )
}

fn source(arguments: &RunArgs) -> Result<EditStreamSource, Failure> {
    if let Some(path) = &arguments.script {
        let text = read(path)?;
        let streams = script::parse(&text).and_then(|lines| script::compile(&lines));
        let streams = streams.map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(EditStreamSource::Script(Arc::new(streams)));
    }
    let corpus = Arc::new(corpus(&arguments.people)?);
    Ok(EditStreamSource::People { corpus, habits: habits(&arguments.people), seed: arguments.people.seed })
}

fn corpus(people: &PeopleArgs) -> Result<Corpus, Failure> {
    match &people.document {
        Some(path) => Ok(Corpus::new(&read(path)?)?),
        None => Ok(Corpus::default()),
    }
}

fn habits(people: &PeopleArgs) -> Habits {
    Habits {
        document_bytes: usize::try_from(people.document_size).unwrap_or(usize::MAX),
        debounce: people.debounce,
        accepted: people.accept,
        place: people.at.map(Into::into).unwrap_or_default(),
        mode: people.mode.map(Into::into).unwrap_or_default(),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn generate(arguments: &GenerateArgs) -> Result<(), Failure> {
    let GenerateArgs { out, documents, length, people } = arguments;
    let (corpus, habits) = (corpus(people)?, habits(people));
    let mut all = Vec::new();
    for document in 0..*documents {
        all.extend(pie_load::people::lines(
            &corpus,
            habits,
            people.seed,
            &format!("document-{document}"),
            *length,
        ));
    }
    tell(out, &all)
}

fn replay(arguments: ScriptArgs) -> Result<(), Failure> {
    let habits = Habits {
        document_bytes: usize::try_from(arguments.file_size).unwrap_or(usize::MAX),
        accepted: arguments.accept,
        ..Habits::default()
    };
    let ScriptArgs { git: repository, out, under, files, versions, seed, .. } = arguments;
    let all = pie_load::people::replay(&Replay { repository, under, files, versions, seed, habits })?;
    tell(&out, &all)
}

/// Writes a script, and says what is in it.
fn tell(out: &Path, lines: &[script::ScriptLine]) -> Result<(), Failure> {
    let streams = script::compile(lines)?;
    report::write(out, &script::write(lines)?)?;
    let edits: usize = streams.iter().map(script::EditStream::edits).sum();
    let seconds: f64 = streams.iter().map(|stream| stream.length.as_secs_f64()).sum();
    outln!("{}: {} documents, {edits} edits in {:.1} minutes", out.display(), streams.len(), seconds / 60.0);
    Ok(())
}

fn written(
    path: Option<&Path>,
    text: impl FnOnce() -> Result<String, pie_load::LoadError>,
) -> Result<(), Failure> {
    if let Some(path) = path {
        report::write(path, &text()?)?;
        say!("wrote {}", path.display());
    }
    Ok(())
}

/// Fails for what `--verify` does not forgive.
fn verified<'a>(
    arguments: &RunArgs,
    reports: impl IntoIterator<Item = &'a LoadReport>,
) -> Result<(), Failure> {
    if !arguments.verify {
        return Ok(());
    }
    let (mut faults, mut equal) = (Vec::new(), 0);
    for report in reports {
        faults.extend(report.faults(&arguments.allow));
        equal += report.compared.equal;
    }
    if faults.is_empty() {
        outln!(
            "verified     {equal} documents equal here and there, every slot given back, nothing went wrong"
        );
        Ok(())
    } else {
        Err(format!("not verified:\n  {}", faults.join("\n  ")).into())
    }
}
