//! `pie demo`: the same stream of edits on two sessions of one pool, one that follows with `pie` and one that encodes
//! anew from the change on, and a completion of both after each edit.

mod plot;
mod report;
mod script;

use crate::cli::{DemoArgs, GroupsArgs, PoolArgs, RankArgs};
use crate::models::ModelKind;
use crate::observe::LogArgs;
use crate::pool::{LocalPool, Preflight, local_serve};
use crate::{Failure, models, progress};
use pie_client::{Completed, CompletionOptions, Pool, SessionHandle};
use pie_proto::v1;
use report::{ComparedStep, DemoReport};
use script::{Script, StepOfScript};
use std::path::Path;

/// A file of this repository as it once was, so that the document is code as people write it, and the same whatever becomes of that.
const DOCUMENT: &str = include_str!("../../demo/engine.rs");
const DOCUMENT_NAME: &str = "crates/pie/demo/engine.rs";
const SCRIPT: &str = include_str!("../../demo/script.jsonl");
/// Steps of the script in a short run.
const SHORT: usize = 4;
/// Alternatives of each token, for the divergence from `full`.
const ALTERNATIVES: u32 = 20;

/// Starts a pool, plays the script with both strategies in turns, and prints the table.
pub async fn run(arguments: DemoArgs) -> Result<(), Failure> {
    let folder = models::resolve(&arguments.model)?;
    let (document_name, document) = document(arguments.document.as_deref())?;
    let script = script(arguments.script.as_deref())?;
    let steps = if arguments.short { SHORT.min(script.steps.len()) } else { script.steps.len() };

    // Ctrl-C ends this process, and the workers with it.
    let pool_arguments = pool_arguments(&arguments);
    let local = LocalPool::start(Preflight::new(&pool_arguments).await?, &LogArgs::warnings()).await?;
    let pool = Pool::connect(&format!("http://{}", local.address())).await?;
    let about = pool.describe().await?;
    outln!(
        "pie-pool: {} ({:.1} M parameters) on {} worker processes, document {document_name}",
        about.model,
        about.parameters as f64 / 1e6,
        local.ranks()
    );
    match folder.kind {
        ModelKind::Given => {}
        ModelKind::Shipped => outln!(
            "The model is a small one, trained on two CPU cores: its text looks like code, and is no help with it."
        ),
        ModelKind::Seeded => outln!(
            "The model is seeded at random, so its completions are noise; what is real is the work and the time."
        ),
    }
    outln!(
        "After each edit both sessions complete {} tokens; times are from the edit to the first token.\n",
        arguments.tokens
    );

    let mut pair = BothSessions::open(&pool, document, arguments.tokens).await?;
    let mut report = DemoReport::new(&about, document_name, local.ranks());
    report.opened(pair.warm_up().await?);
    report::header();
    let bar = progress::count("replaying", steps);
    for step in script.steps.iter().take(steps) {
        let row = pair.step(step).await?;
        bar.suspend(|| {
            report::line(&row);
            report::completion(&row);
        });
        bar.inc(1);
        report.rows.push(row);
    }
    bar.finish_and_clear();
    report::summary(&report);
    if folder.kind == ModelKind::Seeded {
        outln!("(A random model finds all tokens about equally likely: that it agrees at all says little.)");
    }
    if let Some(path) = &arguments.report {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n").map_err(|error| format!("--report {}: {error}", path.display()))?;
        outln!("figures: {}", path.display());
    }
    if let Some(path) = &arguments.plot {
        plot::draw(&report, path)?;
        outln!("plot:    {}", path.display());
    }
    local.stop().await
}

fn pool_arguments(arguments: &DemoArgs) -> PoolArgs {
    PoolArgs {
        model: arguments.model.clone(),
        group: GroupsArgs {
            world_size: arguments.world_size,
            groups: vec!["demo".to_owned()],
            placement: crate::placement::PlacementArgs::default(),
        },
        rank: RankArgs::default(),
        serve: local_serve(),
        supervised: false,
    }
}

fn document(path: Option<&Path>) -> Result<(String, String), Failure> {
    let Some(path) = path else { return Ok((DOCUMENT_NAME.to_owned(), DOCUMENT.to_owned())) };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--document {}: {error}", path.display()))?;
    Ok((path.display().to_string(), text))
}

fn script(path: Option<&Path>) -> Result<Script, Failure> {
    let Some(path) = path else { return Ok(Script::parse(SCRIPT)?) };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--script {}: {error}", path.display()))?;
    Ok(Script::parse(&text)?)
}

/// The two sessions.
struct BothSessions {
    pie: SessionHandle,
    full: SessionHandle,
    options: CompletionOptions,
    /// Texts before each step, for undo.
    history: Vec<String>,
}

impl BothSessions {
    async fn open(pool: &Pool, document: String, tokens: u32) -> Result<Self, Failure> {
        let pie = pool.open("demo-pie", document.clone(), v1::Strategy::Pie).await?;
        let full = pool.open("demo-full", document, v1::Strategy::Full).await?;
        let options =
            CompletionOptions { max_tokens: tokens, top_logprobs: ALTERNATIVES, ..Default::default() };
        Ok(Self { pie, full, options, history: Vec::new() })
    }

    /// Both sessions encode the document; the first completion waits for it.
    async fn warm_up(&mut self) -> Result<Completed, Failure> {
        let first = self.pie.complete(&self.options).await?;
        self.full.complete(&self.options).await?;
        Ok(first)
    }

    async fn step(&mut self, step: &StepOfScript) -> Result<ComparedStep, Failure> {
        let before = self.pie.text().to_owned();
        let requests = step.requests(&before, &self.history)?;
        for edits in &requests {
            self.pie.edit(edits).await?;
        }
        let pie = self.pie.complete(&self.options).await?;
        for edits in &requests {
            self.full.edit(edits).await?;
        }
        let full = self.full.complete(&self.options).await?;
        self.history.push(before);
        Ok(ComparedStep::new(&step.name, requests.len(), self.pie.text(), &pie, &full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_text::Tokenizer;

    /// With every step of the script, and what is generated behind it.
    #[test]
    fn the_document_that_ships_fits_in_the_model_that_ships() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pie-coder");
        let context = pie_model::Config::read(&folder).expect("it ships").max_position_embeddings;
        let tokenizer = Tokenizer::open(&folder).expect("it ships");
        let (mut text, mut history) = (DOCUMENT.to_owned(), Vec::new());
        for step in Script::parse(SCRIPT).expect("it ships").steps {
            let before = text.clone();
            for mut edits in step.requests(&before, &history).expect("nothing to undo twice") {
                edits.sort_by_key(|edit| std::cmp::Reverse(edit.range.start));
                edits.into_iter().for_each(|edit| text.replace_range(edit.range, &edit.text));
            }
            history.push(before);
            let tokens = tokenizer.encode(&text).expect("a text").len();
            assert!(tokens + 128 < context, "{}: {tokens} of {context} tokens", step.name);
        }
    }
}
