//! Settings from a TOML file: they become the defaults of the command line, so that flag and environment win over
//! them. Read once, at start.

use crate::cli::Cli;
use crate::settings::{ConfigError, with_settings};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// Parses the command line, with the settings file's values as defaults.
///
/// # Errors
/// The settings file is wrong, or the command line is; [`ConfigError::Usage`] is a page of help, too.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
    let mut command = Cli::command();
    if let Some(path) = settings_path(&arguments) {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        command = with_settings(command, &text, &path)?;
    }
    let matches = command.try_get_matches_from(arguments)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The file must be known before the command line can be parsed with its defaults. Behind `bench gpu` a `--config` is a
/// model's.
fn settings_path(arguments: &[OsString]) -> Option<PathBuf> {
    let place = |word: &str, from: usize| {
        arguments[from..].iter().position(|argument| argument == word).map(|place| from + place)
    };
    let end = place("bench", 0).and_then(|bench| place("gpu", bench)).unwrap_or(arguments.len());
    let mut arguments = arguments[..end].iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => return arguments.next().map(PathBuf::from),
            Some(text) if text.starts_with("--config=") => {
                return Some(PathBuf::from(&text["--config=".len()..]));
            }
            _ => {}
        }
    }
    std::env::var_os("PIE_CONFIG").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn parsed(settings: &str, arguments: &[&str]) -> Result<Cli, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pie.toml");
        std::fs::write(&path, settings).expect("the settings are written");
        let mut all = vec![OsString::from("pie"), "--config".into(), path.into()];
        all.extend(arguments.iter().map(OsString::from));
        parse(all)
    }

    #[test]
    fn the_file_sets_defaults_and_flags_win() {
        let settings =
            "log = 'info'\n[pool]\nworld-size = 4\nkv-memory = '1GiB'\netcd = ['http://a', 'http://b']\n";
        let cli = parsed(settings, &["pool", "--world-size", "2"]).expect("the settings are right");
        let Command::Pool(pool) = cli.command else { panic!("another command") };
        assert_eq!(
            (cli.logs.log.as_str(), pool.group.ranks(), pool.rank.kv_memory),
            ("info", 2, Some(1 << 30))
        );
        assert_eq!(pool.group.placement.flags(), ["--etcd", "http://a,http://b"]);

        let cli = parsed("[ctl.complete]\nmax-tokens = 9\n", &["ctl", "complete", "a"]);
        let Command::Ctl(ctl) = cli.expect("the settings are right").command else {
            panic!("another command")
        };
        let crate::ctl::args::CtlCommand::Complete { tokens, .. } = ctl.command else {
            panic!("another command")
        };
        assert_eq!(tokens, 9, "a command below a command, by the flag's other name");
    }

    /// Zero of what a pool or a measurement is made of, and what is no size, time, address or share.
    #[test]
    fn useless_values_are_refused_with_their_flag() {
        let cases = [
            (
                "pool",
                "connections 0|connection-age 0s|world-size 0|sessions 0|completions 0|tenant-sessions 0|tenant-tokens 0|tenant-requests 0",
            ),
            (
                "pool",
                "kv-memory 0|document-limit 0|collective-deadline 0s|prefill-time 0ms|step-tokens 7|decode-tokens 0",
            ),
            (
                "pool",
                "repair never|repair-window -1|trace-sample 2|listen localhost|listen nowhere.invalid:1|metrics-listen :1|kv-memory 40Gb/s",
            ),
            (
                "pool",
                "drain-grace 30|world-size 65|free-rows -1|fim <PRE>{prefix}<MID>|fim starcodr|next-edit zed",
            ),
            ("worker --rank 0", "listen 7520|collective-listen x:y|kv-memory 0"),
            ("demo", "world-size 0|tokens 0"),
            (
                "load",
                "sessions 0|tokens 0|rate 0|speed 0|duration 0s|limit 0s|document-size 0|accept 2|rate nan",
            ),
            ("load knee --rates 1", "rates 0"),
            ("load generate --out x", "documents 0|length 0s|document-size 0"),
            ("load script --git . --out x", "files 0|versions 0|versions 1|file-size 0|accept -1"),
            ("ctl health", "wait 5|timeout 0s"),
            ("ctl rewrite a", "tokens 0|lines -1|at 3:x"),
            ("ctl complete a", "tokens 0|max-tokens 0|temperature -1|temperature nan|at 3:x"),
            ("eval", "samples 0|seeds 0|context 0|edits 0"),
            ("bench", "contexts 0|batch-contexts 0|insert 0|sessions 0|repeat 0|kv-dtype int8"),
        ];
        for (command, flags) in cases {
            for flag in flags.split('|') {
                let (flag, value) = flag.split_once(' ').expect("a flag and its value");
                let line = format!("pie {command} --{flag}={value}");
                let Err(refused) = parse(line.split(' ').map(OsString::from).collect()) else {
                    panic!("{line} is taken");
                };
                let why = refused.to_string();
                assert!(why.contains(&format!("--{flag}")) || why.contains("--tokens"), "{line}: {why}");
            }
        }
    }

    #[test]
    fn values_are_taken_as_people_write_them() {
        let line = "pie pool --listen localhost:7520 --kv-memory 40Gi --drain-grace 1h --prefill-time 500ms --metrics-listen [::1]:0";
        let cli = parse(line.split(' ').map(OsString::from).collect()).expect("all are right");
        let Command::Pool(pool) = cli.command else { panic!("another command") };
        let serve = pool.serve;
        assert!(serve.listen.ip().is_loopback() && serve.listen.port() == 7520, "{}", serve.listen);
        assert_eq!(pool.rank.kv_memory, Some(40 << 30));
        assert_eq!((serve.platform.drain_grace.as_secs(), serve.prefill_time.as_millis()), (3600, 500));
        assert!(serve.platform.metrics_listen.is_some_and(|listen| listen.is_ipv6()));
    }

    #[test]
    fn behind_bench_gpu_config_is_the_model() {
        let model = ["bench", "gpu", "--config", "deepseek-coder-33b"];
        for settings in ["", "log = 'info'"] {
            let cli = parsed(settings, &model).expect("the settings are right");
            assert_eq!(cli.logs.log, if settings.is_empty() { "warn" } else { "info" });
            let Command::Bench(bench) = cli.command else { panic!("another command") };
            let Some(crate::bench::args::BenchCommand::Gpu(gpu)) = bench.command else {
                panic!("no command")
            };
            assert_eq!(gpu.config, Some(PathBuf::from("deepseek-coder-33b")));
        }
    }

    #[test]
    fn wrong_settings_say_what_is_wrong() {
        let cases = [
            ("[pool]\nworldsize = 4\n", "pool.worldsize", "did you mean `pool.world-size`?"),
            ("[pol]\nworld-size = 4\n", "pol", "did you mean `pool`?"),
            ("zzzzqq = 1\n", "zzzzqq", "unknown key"),
            ("world-size = 4\n", "`world-size`", "one of the tables [demo], [pool], [router], [worker]"),
            ("[router]\nkv-memory = '1GiB'\n", "`router.kv-memory`", "one of the tables [pool], [worker]"),
            ("rates = '1,2'\n", "`rates`", "it belongs in the table [load.knee]"),
            ("[pool]\nlog = 'info'\n", "`pool.log`", "at the top of the file"),
            ("[pool]\nconfig = 'x'\n", "`pool.config`", "unknown key"),
            ("[load.kneee]\nrates = '1,2'\n", "`load.kneee`", "did you mean `load.knee`?"),
            ("[pool]\nworld-size = 1979-05-27\n", "pool.world-size", "must be a text"),
            ("= 3", "not TOML", "line 1"),
        ];
        for (settings, key, advice) in cases {
            let cause = parsed(settings, &["pool"]).expect_err(settings).to_string();
            assert!(cause.contains(key) && cause.contains(advice), "{settings:?}: {cause}");
        }
    }
}
