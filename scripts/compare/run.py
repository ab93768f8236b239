"""Compares pie-pool, a llama.cpp server and PIE written plainly in Transformers: one model, one document, the same edits.

    python scripts/compare/run.py --llama http://127.0.0.1:8080 --pool 127.0.0.1:7400 --model FOLDER --out FIGURES

Both servers already run (README.md tells how). The systems take turns, one measurement of each after another while the
others idle. Writes FIGURES.json and FIGURES.md: medians, and the median of the ratios of neighbours. The machine must be
quiet: the table says so if it was not, and then names no target as met.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import workload
from llama import Llama, LlamaReuse
from pool import Pool

SMALL = 50e6
CHECKED = 16
# The share of the CPUs that others may take.
QUIET = 0.05


# Of real models, quantized: at least so many times llama.cpp's speed.
QUANTIZED = {
    "full prefill": 0.8,
    "8 characters typed at 50 %": 40.0,
    "64 tokens inserted at 50 %": 20.0,
    "decode behind the document": 0.9,
    "decode at depth 0": 0.9,
}


def targets(parameters: int) -> tuple[dict[str, float], dict[str, float]]:
    """At least so many times llama.cpp's speed, and at most this share of Transformers' time."""
    decode = 2.0 if parameters < SMALL else 1.0
    llama = {
        "full prefill": 1.0,
        "64 tokens inserted at 50 %": 30.0,
        "5 lines deleted at 50 %": 1.0,
        "decode behind the document": decode,
        "decode at depth 0": 0.5,
        workload.AT_ONCE[1]: 20.0,
    }
    return llama, {f"64 tokens inserted at {part} %": 0.65 for part in (10, 50, 90)}


def ratio(title: str, ours: list[float], theirs: list[float]) -> float:
    """How many times faster we are: the median over the repetitions, in each of which the two were neighbours."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(own / other if title.startswith("decode") else other / own for own, other in pairs)


def rows(results: dict[str, dict[str, list[float]]], parameters: int, model: Path) -> list[dict]:
    to_llama, of_transformers = targets(parameters) if model.is_dir() else (QUANTIZED, {})
    table = []
    for title, figures in results.items():
        medians = {name: statistics.median(values) for name, values in figures.items()}
        row = {"scenario": title, "medians": medians}
        llamas = [name for name in medians if name.startswith("llama.cpp")]
        if "pie-pool" in medians and llamas:
            # The variant of llama.cpp that does better.
            best = max(llamas, key=medians.get) if title.startswith("decode") else min(llamas, key=medians.get)
            row["times_llama"] = ratio(title, figures["pie-pool"], figures[best])
            row["against"] = best
            if target := to_llama.get(title):
                row |= {"times_llama_target": target, "times_llama_met": row["times_llama"] >= target}
        if "pie-pool" in medians and "Transformers PIE" in medians:
            row["of_transformers"] = 1 / ratio(title, figures["pie-pool"], figures["Transformers PIE"])
            if target := of_transformers.get(title):
                row |= {"of_transformers_target": target, "of_transformers_met": row["of_transformers"] <= target}
        table.append(row)
    return table


def markdown(report: dict) -> str:
    names = list(report["systems"])
    pool, machine = report["systems"]["pie-pool"], report["machine"]
    measured = (
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, {report['threads']} threads for each system, {report['weights']}, "
        f"{pool['parameters'] / 1e6:.1f} M parameters, a document of {report['context']:,} tokens, {report['repeat']} repetitions. "
        f"Others took {100 * report['taken_by_others']:.0f} % of the CPUs while all systems idled."
    )
    agreed = ", ".join(f"{name} {count}" for name, count in report["agreement"].items())
    checked = (
        f"Of {CHECKED} greedy tokens behind the document, equal to pie-pool's from the start: {agreed}. "
        f"First tokens behind an edit equal in pie-pool and Transformers PIE: {report['agreement_after_edits']}."
    )
    lines = [measured, ""]
    if report["taken_by_others"] > QUIET:
        lines += [
            "**Not a quiet machine: neither times nor ratios count.** llama.cpp's and Transformers' threads wait for each other by "
            "spinning, which costs them far more than their share when others run.",
            "",
        ]
    lines += [
        f"| | {' | '.join(names)} | times llama.cpp's speed | target | of Transformers' time | target |",
        "| --- " * (len(names) + 5) + "|",
    ]
    for row in report["rows"]:
        cells = [row["scenario"]]
        cells += [workload.show(row["scenario"], row["medians"][name]) if name in row["medians"] else "" for name in names]
        for key, sign, digits in (("times_llama", "≥", 1), ("of_transformers", "≤", 2)):
            cells.append(f"**{row[key]:.{digits}f}**" if key in row else "")
            met = {True: ": met", False: ": **missed**"}.get(row.get(f"{key}_met"))
            if report["taken_by_others"] > QUIET:
                met = met and ""
            cells.append("" if met is None else f"{sign} {row[f'{key}_target']:g}{met}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", checked, ""]
    for name, about in report["systems"].items():
        lines.append(f"* {name}: {', '.join(f'{key} {value}' for key, value in about.items())}")
    return "\n".join(lines) + "\n"


def agreement(systems: list, code: workload.Code) -> dict[str, int]:
    """How many greedy tokens agree with the pool's from the start: another model would show here."""
    tokens = code.documents[0]
    found = {system.name: system.greedy(tokens, CHECKED) for system in systems if "prefill" in system.kinds}
    ours = found.pop("pie-pool")

    def equal(theirs: list[int]) -> int:
        return next((at for at, (own, other) in enumerate(zip(ours, theirs, strict=True)) if own != other), CHECKED)

    agreed = {name: equal(theirs) for name, theirs in found.items()}
    strangers = [name for name, count in agreed.items() if count == 0]
    if strangers:
        raise SystemExit(f"{', '.join(strangers)} computes another model than pie-pool: greedy tokens {found}, not {ours}")
    return agreed


def agreement_after_edits(systems: list, code: workload.Code) -> str:
    """Of the two that do PIE: how often the first token behind an edit is the same, each from freshly encoded tokens."""
    document = code.documents[0]
    both = [system for system in systems if system.name in ("Transformers PIE", "pie-pool")]
    if len(both) < 2:
        return "not compared"
    chance = random.Random(0)
    splices = [code.paste(int(part * len(document)), chance) for part in (0.1, 0.9)]
    splices.append(code.cut(len(document) // 2, document))
    equal = 0
    for splice in splices:
        found = []
        for system in both:
            system.hold(0, [])
            system.hold(0, document)
            found.append(system.edit(0, splice)[1])
        equal += found[0] == found[1]
    return f"{equal} of {len(splices)}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--llama", metavar="URL", required=True)
    arguments.add_argument("--pool", metavar="HOST:PORT", required=True)
    arguments.add_argument("--model", type=Path, required=True, help="the folder, or the GGUF file, that both servers were started with")
    arguments.add_argument("--context", type=int, default=4000)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2, help="what both servers were started with; Transformers gets as many")
    arguments.add_argument("--cache-reuse", type=int, default=32, help="smallest chunk of llama.cpp's second variant")
    arguments.add_argument("--without", choices=["transformers"], help="leave this system out")
    arguments.add_argument("--scenarios", nargs="+", choices=workload.KINDS, default=workload.KINDS, help="only these")
    arguments.add_argument("--out", type=Path, default=Path("compare"))
    arguments = arguments.parse_args()

    code = workload.Code(arguments.model, arguments.context)
    pool = Pool(arguments.pool)
    systems = [Llama(arguments.llama), LlamaReuse(arguments.llama, arguments.cache_reuse)]
    if arguments.without != "transformers":
        from transformers_pie import TransformersPie

        systems.append(TransformersPie(arguments.model, arguments.threads))
    systems.append(pool)
    about = {system.name: system.describe() for system in systems}
    for name, described in about.items():
        print(f"{name}: {described}", flush=True)
    agreed, after_edits, results = {}, "not compared", {}
    try:
        agreed = agreement(systems, code)
        after_edits = agreement_after_edits(systems, code)
        turns = workload.measure(systems, code, arguments.repeat, arguments.scenarios, lambda line: print(line, flush=True))
        for title, figures in turns:
            results[title] = figures
    except KeyboardInterrupt:
        print("interrupted: what is complete is reported", flush=True)
    finally:
        pool.close()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": workload.machine(),
        "taken_by_others": statistics.mean(workload.taken_by_others or [0.0]),
        "context": arguments.context,
        "threads": arguments.threads,
        "weights": "f32" if arguments.model.is_dir() else arguments.model.name,
        "repeat": arguments.repeat,
        "systems": about,
        "agreement": agreed,
        "agreement_after_edits": after_edits,
        "rows": rows(results, about[pool.name]["parameters"], arguments.model),
        "figures": results,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    arguments.out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
