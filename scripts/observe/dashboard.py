#!/usr/bin/env python3
"""Writes helm/pie-pool/dashboards/pie-pool.json, the Grafana dashboard, from the list of panels below.

usage: scripts/observe/dashboard.py [--check]

--check  writes nothing, and fails if the file is not what the list says
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "helm/pie-pool/dashboards/pie-pool.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What the variables choose; each query has it.
CHOSEN = 'group=~"$group"'
COLUMNS, HEIGHT = 24, 8


@dataclass
class Panel:
    title: str
    # What one should think when looking at it.
    about: str
    # (legend, query)
    queries: list[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8


def rate(metric: str, by: str = "group", labels: str = "") -> str:
    chosen = ", ".join(filter(None, (CHOSEN, labels)))
    return f"sum by ({by}) (rate({metric}{{{chosen}}}[$__rate_interval]))"


def gauge(metric: str, by: str = "group", how: str = "sum") -> str:
    return f"{how} by ({by}) ({metric}{{{CHOSEN}}})"


def quantiles(metric: str) -> list[tuple[str, str]]:
    buckets = rate(f"{metric}_bucket", "le")
    return [(f"p{share}", f"histogram_quantile({share / 100}, {buckets})") for share in (50, 95, 99)]


ROWS: list[tuple[str, list[Panel]]] = [
    (
        "What people feel",
        [
            Panel(
                "Edit to first token",
                "100 ms feels instant, 300 ms good, 700 ms is abandoned.",
                quantiles("pie_edit_to_first_token_seconds"),
                "s",
            ),
            Panel("Time to first token", "From the call.", quantiles("pie_time_to_first_token_seconds"), "s"),
            Panel("Inter-token latency", "Between two tokens.", quantiles("pie_inter_token_latency_seconds"), "s"),
            Panel("Completions by outcome", "Edited is normal.", [("{{outcome}}", rate("pie_completions_total", "outcome"))], "ops"),
            Panel("Refusals and errors", "`pie explain REASON` tells more.", [("{{reason}}", rate("pie_errors_total", "reason") + " > 0")], "ops"),
            Panel(
                "Answered below 300 ms",
                "Share of edits whose first token came in time.",
                [
                    (
                        "{{group}}",
                        rate("pie_edit_to_first_token_seconds_bucket", labels='le="0.3"')
                        + " / "
                        + rate("pie_edit_to_first_token_seconds_count"),
                    )
                ],
                "percentunit",
            ),
        ],
    ),
    (
        "Work",
        [
            Panel("Sessions", "Open documents.", [("{{group}}", gauge("pie_sessions"))], width=6),
            Panel("Edits", "", [("{{group}}", rate("pie_edits_total"))], "ops", width=6),
            Panel(
                "Completions in progress",
                "Those that wait should be few, and not for long.",
                [("{{state}}", gauge("pie_completions_in_progress", "state")), ("streams", "sum (pie_streams)")],
                width=6,
            ),
            Panel(
                "Queues",
                "Of the group's owner; at 1024 calls are refused (OVERLOADED).",
                [("calls and reports", gauge("pie_owner_queue_length")), ("changes", gauge("pie_changes_waiting"))],
                width=6,
            ),
            Panel(
                "Tokens by what happened to them",
                "Reused and adopted should be far above encoded: that is what the pool is for.",
                [(name, rate(f"pie_tokens_{name}_total")) for name in ("encoded", "reused", "rotated", "adopted", "shared", "repaired")],
                "ops",
                width=12,
            ),
            Panel(
                "Context taken from the cache",
                "Reused of encoded + reused.",
                [
                    (
                        "{{group}}",
                        f"{rate('pie_tokens_reused_total')} / ({rate('pie_tokens_reused_total')} + {rate('pie_tokens_encoded_total')})",
                    )
                ],
                "percentunit",
                width=6,
            ),
            Panel("Generated tokens", "", [("{{group}}", rate("pie_tokens_generated_total"))], "ops", width=6),
        ],
    ),
    (
        "Cache",
        [
            Panel(
                "KV slots",
                "Full is normal for a cache: look at what is dropped.",
                [("used", gauge("pie_kv_slots_used")), ("all", gauge("pie_kv_slots"))],
            ),
            Panel(
                "Sessions opened and dropped",
                "Many drops: the pool needs more KV memory.",
                [("opened", rate("pie_sessions_opened_total")), ("dropped", rate("pie_sessions_dropped_total"))],
                "ops",
            ),
            Panel(
                "Stale tokens",
                "Of all documents' tokens: it falls to 0 when people pause (docs/repair.md).",
                [("{{group}}", f"{gauge('pie_tokens_stale')} / {gauge('pie_document_tokens')}")],
                "percentunit",
            ),
            Panel(
                "Repairs",
                "Tokens encoded again. Many given up: the pool is hardly ever idle.",
                [("tokens", rate("pie_tokens_repaired_total")), ("given up", rate("pie_repairs_given_up_total"))],
                "ops",
                width=12,
            ),
            Panel("Free rows", "Tokens that a pass takes along for next to nothing.", [("{{group}}", gauge("pie_free_rows"))], width=12),
        ],
    ),
    (
        "Steps and ranks",
        [
            Panel("Step", "Rank 0, a whole plan.", quantiles("pie_step_seconds"), "s"),
            Panel("Collectives of a step", "Waiting included.", quantiles("pie_step_collective_seconds"), "s"),
            Panel("Skew", "Slowest against fastest rank's own work in a plan.", quantiles("pie_step_skew_seconds"), "s"),
            Panel(
                "Steps, passes, interrupts",
                "",
                [(name, rate(f"pie_{name}_total")) for name in ("steps", "passes", "interrupts")],
                "ops",
            ),
            Panel("Each rank's own work", "One that stands out is slow.", [("rank {{rank}}", rate("pie_group_rank_compute_seconds_total", "rank"))], "percentunit"),
            Panel("Each rank's collectives", "The slow one waits least.", [("rank {{rank}}", rate("pie_group_rank_collective_seconds_total", "rank"))], "percentunit"),
        ],
    ),
    (
        "Group",
        [
            Panel("Serving routers", "One for each group.", [("{{group}}", gauge("pie_group_serving"))], width=6),
            Panel("Events of the group", "", [("{{event}}", rate("pie_group_events_total", "event"))], "ops", width=6),
            Panel("Epoch", "A step is a new formation.", [("{{group}}", gauge("pie_group_epoch", how="max"))], width=6),
            Panel("Draining routers", "", [("{{group}}", gauge("pie_draining"))], width=6),
            Panel(
                "Ranks by device",
                "From the workers' own endpoints.",
                [("{{group}} {{rank}} {{device}} {{model}}", gauge("pie_rank_info", "group, rank, device, model"))],
                width=12,
            ),
            Panel("Releases", "", [("{{version}}", "count by (version) (pie_build_info)")], width=12),
        ],
    ),
    (
        "Workers",
        [
            Panel("Plans", "Equal on all ranks of a group.", [("rank {{rank}}", rate("pie_rank_steps_total", "rank"))], "ops", width=6),
            Panel(
                "Time",
                "Own work and collectives, as the workers count them.",
                [
                    ("compute {{rank}}", rate("pie_rank_compute_seconds_total", "rank")),
                    ("collectives {{rank}}", rate("pie_rank_collective_seconds_total", "rank")),
                ],
                "percentunit",
                width=6,
            ),
            Panel(
                "KV slots used",
                "Equal on all ranks of a group.",
                [("rank {{rank}}", f"{gauge('pie_rank_kv_slots_used', 'rank')} / {gauge('pie_rank_kv_slots', 'rank')}")],
                "percentunit",
                width=6,
            ),
            Panel("Failed plans", "Each ended an epoch.", [("rank {{rank}}", rate("pie_rank_failures_total", "rank"))], "ops", width=6),
            Panel("Epoch", "0: in no group.", [("rank {{rank}}", gauge("pie_rank_epoch", "rank", "max"))], width=12),
            Panel(
                "Memory",
                "",
                [("weights {{rank}}", gauge("pie_rank_weight_bytes", "rank")), ("KV {{rank}}", gauge("pie_rank_kv_bytes", "rank"))],
                "bytes",
                width=12,
            ),
        ],
    ),
]


def panel(number: int, what: Panel, x: int, y: int) -> dict:
    return {
        "id": number,
        "type": what.kind,
        "title": what.title,
        "description": what.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": what.width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": what.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(what.queries)
        ],
    }


def panels() -> list[dict]:
    made, y = [], 0
    for title, row in ROWS:
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        x, y = 0, y + 1
        for what in row:
            if x + what.width > COLUMNS:
                x, y = 0, y + HEIGHT
            made.append(panel(len(made) + 1, what, x, y))
            x += what.width
        y += HEIGHT
    return made


def variables() -> list[dict]:
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    query = "label_values(pie_group_serving, group)"
    group = {"name": "group", "label": "Group", "type": "query", "datasource": SOURCE, "query": query, "definition": query}
    return [datasource, group | {"refresh": 2, "multi": True, "includeAll": True, "allValue": ".*", "sort": 1}]


def dashboard() -> dict:
    return {
        "uid": "pie-pool",
        "title": "pie-pool",
        "description": "Made by scripts/observe/dashboard.py; docs/observability.md explains the metrics.",
        "tags": ["pie-pool"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables()},
        "annotations": {"list": []},
        "panels": panels(),
    }


def main() -> int:
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if DASHBOARD.read_text() == text:
            return 0
        print(f"{DASHBOARD} is not what the list of panels says: run {sys.argv[0]}", file=sys.stderr)
        return 1
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    DASHBOARD.parent.mkdir(parents=True, exist_ok=True)
    DASHBOARD.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
