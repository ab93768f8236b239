//! A small seeded model with the tokenizer that ships, and three short samples.

use pie_eval::engine::Machine;
use pie_eval::names::{Arm, Language, Method, Setting, Spot, Storage, Task};
use pie_eval::results::{self, Record};
use pie_eval::{EvalError, EvaluationOptions};
use pie_model::Config;
use std::path::PathBuf;

pub const TOKENIZER: &str = include_str!("../../../../models/tiny-code/tokenizer.json");

pub struct EvaluationFolder {
    folder: tempfile::TempDir,
}

impl EvaluationFolder {
    /// A seeded model with the tokenizer that ships, and three short samples.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = Self { folder };
        let config =
            Config { vocab_size: 8192, layers: 2, ..Config::preset("test").expect("a preset for tests") };
        pie_model::seeded::write_model(&place.model(), &config, 7, &mut |_, _| {})
            .expect("it can be written");
        std::fs::write(place.model().join("tokenizer.json"), TOKENIZER).expect("it can be written");
        std::fs::create_dir(place.data()).expect("a folder");
        let lines: String = (0..3).map(sample).collect();
        std::fs::write(place.data().join("python_cff.jsonl"), lines).expect("it can be written");
        place
    }

    pub fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn options(&self, out: &str) -> EvaluationOptions {
        EvaluationOptions {
            model: self.model(),
            data: Some(self.data()),
            out: self.folder.path().join(out),
            context: None,
            samples: None,
            languages: vec![Language::Python, Language::Java],
            settings: Setting::ALL.to_vec(),
            tasks: Task::ALL.to_vec(),
            seeds: 1,
            methods: Method::ALL.to_vec(),
            timed_samples: 1,
            compared_samples: 1,
            accumulated_samples: 1,
            edits: vec![1, 4],
            arms: Arm::ALL.to_vec(),
            storages: Storage::ALL.to_vec(),
            spots: Spot::ALL.to_vec(),
            git: None,
            // Time for every row there is, however fast the machine.
            idle: vec![0, 1_000_000],
            window: 24,
            window_samples: 1,
            windows: vec![0, 16],
        }
    }

    pub fn machine(&self) -> Machine {
        Machine::load(&self.model(), 512, &mut |_, _| {}).expect("it loads")
    }
}

fn sample(number: usize) -> String {
    let code: String =
        (0..12).map(|line| format!("def f{line}(x):\n    return x + {}\n", line * (number + 1))).collect();
    let row = serde_json::json!({
        "repo_name": "r", "file_path": "f.py", "context": "# Path: g.py\n# def g(): pass",
        "import_statement": "import os", "code": code, "next_line": "x = f1(2)",
    });
    format!("{row}\n")
}

pub fn run(options: &EvaluationOptions) -> Result<Vec<Record>, EvalError> {
    pie_eval::run(options, &mut |_| {})?;
    results::read(&options.out)
}
