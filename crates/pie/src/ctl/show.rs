//! What `pie ctl` prints: tables and sentences for people, or JSON whose fields stay. Their names are those of the API's messages.

use super::caller::CtlError;
use super::health;
use crate::{Failure, ReportedError, observe};
use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use pie_proto::v1;
use serde_json::{Value, json};

/// The state of a group that is formed.
pub const SERVING: &str = "serving";

/// Lines that become others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineChange<'a> {
    /// The first, from 0.
    pub line: usize,
    /// What stands there.
    pub removed: &'a str,
    /// What is to stand there.
    pub inserted: &'a str,
    /// Of the text, in its place.
    pub bytes: std::ops::Range<usize>,
}

/// For whom to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// People: tables and sentences.
    Text,
    /// Programs: one JSON value a line.
    Json,
}

/// A table without frames: columns that awk and eyes both read.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

impl Show {
    /// As the flag says.
    pub fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// Tells why a command fails, if the program itself does not.
    pub fn failed(self, error: CtlError) -> Failure {
        match self {
            Self::Text => error.into(),
            Self::Json => {
                let line = json!({ "error": { "code": error.code(), "message": error.to_string() } });
                observe::line(&line.to_string());
                ReportedError.into()
            }
        }
    }

    /// Prints one of both.
    fn print(self, json: impl FnOnce() -> Value, text: impl FnOnce()) {
        match self {
            Self::Text => text(),
            Self::Json => outln!("{}", json()),
        }
    }

    /// What the pool is made of.
    pub fn pool(self, about: &v1::DescribePoolResponse) {
        let json = || {
            json!({
                "version": about.version,
                "model": about.model,
                "parameters": about.parameters,
                "vocabulary": about.vocabulary,
                "context_limit": about.context_limit,
                "groups": about.groups.iter().map(group_json).collect::<Vec<_>>(),
            })
        };
        self.print(json, || pool_text(about));
    }

    /// How many groups serve, and what the others are at.
    pub fn healthy(self, groups: &[v1::Group]) {
        let serving = groups.iter().filter(|group| health::takes_sessions(group)).count();
        let json =
            || json!({ "serving": serving, "groups": groups.iter().map(group_json).collect::<Vec<_>>() });
        self.print(json, || {
            let rest = health::states(groups);
            let rest = if rest.is_empty() { rest } else { format!("; {rest}") };
            outln!("serving: {serving} of {} groups{rest}", groups.len());
        });
    }

    /// The ranks of all groups.
    pub fn ranks(self, about: &v1::DescribePoolResponse) {
        let all = || about.groups.iter().flat_map(|group| group.ranks.iter().map(move |rank| (group, rank)));
        let json = || all().map(|(group, rank)| rank_json(group, rank)).collect();
        self.print(json, || {
            let mut ranks = table(["group", "rank", "address", "device", "weights", "KV cache"]);
            for (group, rank) in all() {
                ranks.add_row([
                    group.group.clone(),
                    rank.rank.to_string(),
                    rank.address.clone(),
                    rank.device.clone(),
                    ByteSize(rank.weight_bytes).to_string(),
                    ByteSize(rank.kv_bytes).to_string(),
                ]);
            }
            outln!("{ranks}");
        });
    }

    /// The caller's own sessions.
    pub fn sessions(self, all: &[v1::Session]) {
        self.print(
            || all.iter().map(session_json).collect(),
            || {
                let mut sessions = table([
                    "session", "group", "revision", "bytes", "tokens", "pending", "shared", "resident",
                    "strategy",
                ]);
                for session in all {
                    sessions.add_row([
                        session.session.clone(),
                        session.group.clone(),
                        session.revision.to_string(),
                        session.bytes.to_string(),
                        session.tokens.to_string(),
                        session.tokens_pending.to_string(),
                        session.tokens_shared.to_string(),
                        if session.resident { "yes" } else { "no" }.to_owned(),
                        strategy(session),
                    ]);
                }
                outln!("{sessions}");
            },
        );
    }

    /// Sessions of any tenant, for who runs the pool.
    pub fn held(self, all: &[v1::TenantSession]) {
        let of = |held: &v1::TenantSession| held.session.clone().unwrap_or_default();
        let json = |held: &v1::TenantSession| {
            let mut json = session_json(&of(held));
            json["tenant"] = json!(held.tenant);
            json["idle_ms"] = json!(held.idle_ms);
            json["completions"] = json!(held.completions);
            json
        };
        self.print(
            || all.iter().map(json).collect(),
            || {
                let mut table = table(["tenant", "session", "group", "tokens", "idle", "completions"]);
                for held in all {
                    let session = of(held);
                    let idle = std::time::Duration::from_secs(held.idle_ms / 1000);
                    table.add_row([
                        if held.tenant.is_empty() { "-".to_owned() } else { held.tenant.clone() },
                        session.session,
                        session.group,
                        session.tokens.to_string(),
                        format!("{idle:?}"),
                        held.completions.to_string(),
                    ]);
                }
                outln!("{table}");
            },
        );
    }

    /// How many sessions were closed, and why others stay.
    pub fn evicted(self, done: &v1::CloseTenantSessionsResponse) {
        let v1::CloseTenantSessionsResponse { closed, left, why } = done;
        self.print(
            || json!({ "closed": closed, "left": left, "why": why }),
            || match left {
                0 => outln!("{closed} sessions closed"),
                left => outln!("{closed} sessions closed, {left} stay: {why}"),
            },
        );
    }

    /// A document: its text, or its tokens where it has no text.
    pub fn session(self, answer: v1::GetSessionResponse) {
        let v1::GetSessionResponse { session, text, tokens, parts } = answer;
        let tokens = tokens.map(|tokens| tokens.ids);
        let json = || {
            let mut json = session.as_ref().map(session_json).unwrap_or_else(|| json!({}));
            json["text"] = json!(text);
            json["token_ids"] = json!(tokens);
            let parts = parts.as_ref().map(|parts| parts.parts.as_slice()).unwrap_or_default();
            json["parts"] =
                parts.iter().map(|part| json!({ "name": part.name, "text": part.text })).collect();
            json
        };
        self.print(json, || match (&text, &tokens) {
            (Some(text), _) => out!("{text}"),
            (None, Some(tokens)) => outln!("{tokens:?}"),
            (None, None) => {}
        });
    }

    /// A session that was opened, or brought to another text.
    pub fn opened(self, opened: &v1::OpenSessionResponse) {
        let v1::OpenSessionResponse { session, revision, tokens, reused, .. } = opened;
        self.print(
            || json!({ "session": session, "revision": revision, "tokens": tokens, "reused": reused }),
            || outln!("{session} at revision {revision}: {tokens} tokens, {reused} of them held already"),
        );
    }

    /// What an edit did.
    pub fn edited(self, edited: &v1::ApplyEditsResponse) {
        let v1::ApplyEditsResponse { revision, tokens, tokens_inserted, tokens_deleted, .. } = edited;
        self.print(
            || {
                json!({
                    "revision": revision,
                    "tokens": tokens,
                    "tokens_inserted": tokens_inserted,
                    "tokens_deleted": tokens_deleted,
                    "tokens_retokenized": edited.tokens_retokenized,
                })
            },
            || {
                outln!(
                    "revision {revision}: {tokens_inserted} tokens in, {tokens_deleted} out, {tokens} in all"
                )
            },
        );
    }

    /// A session that was closed; people need not be told.
    pub fn closed(self, session: &str) {
        self.print(|| json!({ "session": session, "closed": true }), || {});
    }

    /// A group that takes new sessions again; people need not be told.
    pub fn uncordoned(self, group: &str) {
        self.print(|| json!({ "group": group, "open": true }), || {});
    }

    /// A group that was closed, and where its sessions are.
    pub fn drained(self, group: &str, last: &v1::DrainGroupResponse) {
        let v1::DrainGroupResponse { moved, left, why } = last;
        self.print(
            || json!({ "group": group, "moved": moved, "left": left, "why": why }),
            || match left {
                0 => outln!("group {group} is closed; {moved} sessions moved to other groups"),
                left => outln!("group {group} is closed; {moved} sessions moved, {left} stay: {why}"),
            },
        );
    }

    /// Lines that a rewriting changes.
    pub fn line_change(self, change: &LineChange<'_>) {
        let LineChange { line, removed, inserted, bytes } = change;
        self.print(
            || json!({ "line": line, "start": bytes.start, "end": bytes.end, "removed": removed, "inserted": inserted }),
            || {
                outln!("@@ line {line} @@");
                removed.lines().for_each(|line| outln!("-{line}"));
                inserted.lines().for_each(|line| outln!("+{line}"));
            },
        );
    }

    /// A rewriting is over.
    pub fn rewritten(self, revision: u64, changes: usize, finish: v1::FinishReason) {
        let reason = finish.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase();
        self.print(
            || json!({ "revision": revision, "changes": changes, "finish_reason": reason }),
            || match changes {
                0 => say!("[nothing changes at revision {revision}: {reason}]"),
                changes => say!("[{changes} changes at revision {revision}: {reason}]"),
            },
        );
    }

    /// A part of a completion, as it comes.
    pub fn completed(self, message: &v1::CompleteResponse) {
        let reason =
            message.finish_reason().as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase();
        let finish = (message.finish_reason() != v1::FinishReason::Unspecified).then_some(reason);
        let json = || {
            json!({
                "revision": message.revision,
                "text_delta": message.text_delta,
                "tokens": message.tokens.len(),
                "finish_reason": finish,
                "timings": message.timings.as_ref().map(timings_json),
            })
        };
        self.print(json, || {
            out!("{}", message.text_delta);
            if let Some(reason) = &finish {
                let end = format!("[{reason} at revision {}]", message.revision);
                // Behind a text that need not end its last line.
                if observe::for_people() { observe::line(&format!("\n{end}")) } else { say!("{end}") }
            }
        });
    }
}

fn pool_text(about: &v1::DescribePoolResponse) {
    let millions = about.parameters as f64 / 1e6;
    outln!("pie-pool {}", about.version);
    outln!("model    {} ({millions:.1} M parameters, vocabulary {})", about.model, about.vocabulary);
    outln!("context  {} tokens", about.context_limit);
    let header = [
        "group",
        "state",
        "takes new",
        "epoch",
        "ranks",
        "sessions",
        "tokens",
        "slots free",
        "slots",
        "router",
    ];
    let mut groups = table(header);
    for group in &about.groups {
        groups.add_row([
            group.group.clone(),
            if group.state == SERVING { SERVING } else { "waiting" }.to_owned(),
            if group.open { "yes" } else { "no" }.to_owned(),
            group.epoch.to_string(),
            group.ranks.len().to_string(),
            group.sessions.to_string(),
            group.tokens.to_string(),
            group.slots_free.to_string(),
            group.slots_total.to_string(),
            group.owner.clone(),
        ]);
    }
    outln!("{groups}");
    for group in about.groups.iter().filter(|group| group.state != SERVING) {
        outln!("\ngroup {} is not formed: {}", group.group, group.state);
    }
}

fn group_json(group: &v1::Group) -> Value {
    json!({
        "group": group.group,
        "state": group.state,
        "open": group.open,
        "epoch": group.epoch,
        "ranks": group.ranks.len(),
        "sessions": group.sessions,
        "tokens": group.tokens,
        "slots_free": group.slots_free,
        "slots_total": group.slots_total,
        "owner": group.owner,
    })
}

fn rank_json(group: &v1::Group, rank: &v1::Rank) -> Value {
    json!({
        "group": group.group,
        "rank": rank.rank,
        "address": rank.address,
        "device": rank.device,
        "weight_bytes": rank.weight_bytes,
        "kv_bytes": rank.kv_bytes,
    })
}

fn session_json(session: &v1::Session) -> Value {
    json!({
        "session": session.session,
        "group": session.group,
        "revision": session.revision,
        "bytes": session.bytes,
        "tokens": session.tokens,
        "tokens_pending": session.tokens_pending,
        "tokens_shared": session.tokens_shared,
        "tokens_stale": session.tokens_stale,
        "tokens_exact": session.tokens_exact,
        "tokens_repaired": session.tokens_repaired,
        "resident": session.resident,
        "strategy": strategy(session),
        "repair_window": session.repair_window,
        "tokenized_whole_because": session.tokenized_whole_because,
        "control_tokens": session.control_tokens,
    })
}

fn timings_json(timings: &v1::Timings) -> Value {
    json!({
        "queue_us": timings.queue_us,
        "first_token_us": timings.first_token_us,
        "compute_us": timings.compute_us,
        "edit_to_first_token_us": timings.edit_to_first_token_us,
        "tokens_encoded": timings.tokens_encoded,
        "tokens_encoded_ahead": timings.tokens_encoded_ahead,
        "tokens_rotated": timings.tokens_rotated,
        "tokens_reused": timings.tokens_reused,
        "tokens_adopted": timings.tokens_adopted,
        "tokens_repaired": timings.tokens_repaired,
        "tokens_stale": timings.tokens_stale,
    })
}

fn strategy(session: &v1::Session) -> String {
    session.strategy().as_str_name().trim_start_matches("STRATEGY_").to_lowercase()
}
