#!/usr/bin/env python3
"""How the house stands: lines, forms, structs, names and packages of a tree, or of two side by side.

    python3 scripts/measure/house.py                                  # the working tree
    python3 scripts/measure/house.py --commit f8c6799                 # a commit
    python3 scripts/measure/house.py --before f8c6799                 # a commit beside the working tree
    python3 scripts/measure/house.py --before f8c6799 --build         # and a cold build of each: minutes
    python3 scripts/measure/house.py --names --structs --undocumented # and lists of what is behind three of the figures

Rust is read as text, with comments, strings and `#[cfg(test)]` items told apart; macros are not expanded. What is counted:

* a line of *code* holds something besides white space and comments. Product code is `src/` of all crates without tests; the demo
  document of `crates/pie/demo` is data.
* a *type name* is that of a struct, enum, union, trait or type alias outside impl and trait blocks.
* a *method* is any `fn` in an impl block of a type, traits' included; impl blocks are told apart by crate, and by file where a
  crate has two types of a name.
* a *public item* is one marked `pub`, fields included, whether it can be reached from outside or not; rustc's `missing_docs` sees
  reachable ones only. Variants of public enums count too.

The two lists below are written by hand. An entry that the working tree does not have is an error (exit status 1), and so is one
that is called gone and is there: they cannot rot. So is a public item without docs.
"""

import argparse
import contextlib
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Listed:
    """A file or a type of the hand-written lists. `gone`: only in older trees."""

    where: str
    why: str
    gone: bool = False


# The files that one edit goes through, from the call's text to logits on the CPU; a folder stands for all its files. Loading,
# telemetry, completions' texts, groups that move, and GPUs are beside it.
CORE_PATH = [
    Listed("pie-proto/src/request.rs", "the call is checked"),
    Listed("pie-group/src/call.rs", "it is handed to the owner"),
    Listed("pie-router/src/service/preparing.rs", "large edits are worked out beside the owner"),
    Listed("pie-text/src/edit.rs", "ranges are checked against the text and put in order"),
    Listed("pie-text/src/document.rs", "the document, and what an edit does to it"),
    Listed("pie-text/src/change.rs", "a change that is prepared and not made"),
    Listed("pie-text/src/sequence.rs", "edits that build on each other"),
    Listed("pie-text/src/retokenize.rs", "tokens are found again around the edit"),
    Listed("pie-text/src/scan.rs", "where tokenizing may begin again"),
    Listed("pie-text/src/pieces.rs", "the text is cut as the tokenizer cuts it"),
    Listed("pie-text/src/form.rs", "how far a character reaches"),
    Listed("pie-text/src/nfc.rs", "the same, where texts are normalized"),
    Listed("pie-text/src/tokenizer.rs", "pieces become tokens"),
    Listed("pie-text/src/store.rs", "tokens of a document, by index and by byte"),
    Listed("pie-words/src/edit.rs", "what the edit is in the text"),
    Listed("pie-words/src/splice.rs", "what it is in tokens"),
    Listed("pie-words/src/ids.rs", "what it is named by"),
    Listed("pie-plan/src/splice.rs", "the same, before there was a crate of words", gone=True),
    Listed("pie-plan/src/ids.rs", "likewise", gone=True),
    Listed("pie-group/src/owner.rs", "the owner's loop"),
    Listed("pie-group/src/owner/inbox.rs", "who is served first"),
    Listed("pie-group/src/core.rs", "the owner's state"),
    Listed("pie-group/src/core/editing.rs", "the edit is made, or refused"),
    Listed("pie-group/src/desk.rs", "whoever asked is answered"),
    Listed("pie-group/src/core/sessions.rs", "documents under their names"),
    Listed("pie-group/src/core/session.rs", "one of them"),
    Listed("pie-group/src/core/planner.rs", "what the group hears of the edit"),
    Listed("pie-group/src/core/allotment.rs", "rows follow the documents"),
    Listed("pie-group/src/core/rows.rs", "what is held of a session"),
    Listed("pie-group/src/core/tables.rs", "the tables"),
    Listed("pie-group/src/core/room.rs", "who makes room"),
    Listed("pie-group/src/core/demands.rs", "who wants to run"),
    Listed("pie-group/src/core/stepping.rs", "the next plan"),
    Listed("pie-group/src/core/model.rs", "what the model can see"),
    Listed("pie-group/src/core/layout.rs", "markers around a cursor"),
    Listed("pie-group/src/core/limits.rs", "what is refused", gone=True),
    Listed("pie-router/src/session.rs", "what the owner knows of a session", gone=True),
    Listed("pie-router/src/layout.rs", "markers around a cursor", gone=True),
    Listed("pie-group/src/ranks.rs", "plans go to the ranks"),
    Listed("pie-plan/src/schedule.rs", "who runs"),
    Listed("pie-plan/src/plan.rs", "a plan, and what it asks of tensors"),
    Listed("pie-plan/src/group.rs", "a plan is applied"),
    Listed("pie-plan/src/table.rs", "rows are spliced, settled and encoded"),
    Listed("pie-plan/src/rows.rs", "the columns of a table"),
    Listed("pie-plan/src/slots.rs", "which slots are free"),
    Listed("pie-proto/src/plan.rs", "plans on the wire"),
    Listed("pie-worker/src/service.rs", "plans come in"),
    Listed("pie-worker/src/engine.rs", "the engine's thread"),
    Listed("pie-worker/src/rank.rs", "a plan becomes passes"),
    Listed("pie-model/src/compute.rs", "what a rank computes with"),
    Listed("pie-model/src/batch.rs", "the rows of a pass, checked"),
    Listed("pie-kv/src/cache.rs", "keys are turned in place"),
    Listed("pie-kv/src/rope.rs", "by which angle"),
    Listed("pie-model/src/forward.rs", "the pass"),
    Listed("pie-model/src/layers.rs", "norms and activations"),
    Listed("pie-model/src/product/mod.rs", "rows against weights"),
    Listed("pie-model/src/product/kernel.rs", "some rows against a panel of them"),
    Listed("pie-kv/src/attention.rs", "attention through slot tables"),
    Listed("pie-kv/src/few.rs", "the same for few rows"),
    Listed("pie-kv/src/many.rs", "the same for many rows"),
]

# The types whose values hold an edit (its ranges, text, tokens or rows) on its way, in order. `crate/Type`.
FORMS = [
    Listed("pie-proto/ApplyEdits", "the call, checked; behind v1::ApplyEditsRequest, which is protobuf's"),
    Listed("pie-words/TextEdit", "one of its edits"),
    Listed("pie-proto/TextEdit", "the same on the wire's side", gone=True),
    Listed("pie-group/Call", "on its way to the owner"),
    Listed("pie-text/TextEdit", "the edit as a document takes it", gone=True),
    Listed("pie-text/CheckedEdit", "its byte offsets, checked"),
    Listed("pie-text/Placed", "the same by another name", gone=True),
    Listed("pie-text/Replacement", "the tokens that were found again"),
    Listed("pie-text/DocumentChange", "the change of a document, prepared"),
    Listed("pie-text/Change", "the same by a name that was another's too", gone=True),
    Listed("pie-words/Splice", "the edit in tokens"),
    Listed("pie-plan/Splice", "the same, before there was a crate of words", gone=True),
    Listed("pie-router/Op", "waiting for the tables", gone=True),
    Listed("pie-plan/Change", "a change of the tables"),
    Listed("pie-plan/Plan", "with what else happens in a step"),
    Listed("pie-proto/Step", "with sampling; worker.v1.Plan, which is protobuf's, is between two of these"),
    Listed("pie-plan/Rows", "the columns of a table"),
    Listed("pie-plan/Row", "a row to encode"),
    Listed("pie-plan/Work", "what a plan asks of tensors"),
    Listed("pie-model/Batch", "the rows of a pass"),
    Listed("pie-model/Sequence", "one session's rows in it, and what they see"),
]

STRUCTS_SHOWN = 12


class Blanked:
    """Rust text with comments blanked, and with strings blanked too: same length and line ends as the original."""

    TOKEN = re.compile(
        r"""(?P<line>//[^\n]*)|(?P<block>/\*)|(?P<raw>\bb?c?r(?P<hashes>\#*)"(?:.|\n)*?"(?P=hashes))"""
        r"""|(?P<string>"(?:[^"\\]|\\(?:.|\n))*")|(?P<char>'(?:[^'\\\n]|\\(?:[^u]|u\{[^}]*\}|x..))')"""
    )

    def __init__(self, text: str) -> None:
        code, bare = list(text), list(text)
        position = 0
        while found := self.TOKEN.search(text, position):
            start, end = found.span()
            if found["block"]:
                end = self.block_end(text, start)
            for index in range(start, end):
                if text[index] != "\n":
                    bare[index] = " "
                    if found["line"] or found["block"]:
                        code[index] = " "
            position = end
        self.code, self.bare = "".join(code), "".join(bare)

    @staticmethod
    def block_end(text: str, start: int) -> int:
        depth = 0
        for mark in re.finditer(r"/\*|\*/", text[start:]):
            depth += 1 if mark[0] == "/*" else -1
            if depth == 0:
                return start + mark.end()
        return len(text)


def close_of(bare: str, opening: int) -> int:
    """Behind the bracket that closes the one at `opening`."""
    depth = 0
    for mark in re.compile(r"[{}()\[\]]").finditer(bare, opening):
        depth += 1 if mark[0] in "{([" else -1
        if depth == 0:
            return mark.end()
    return len(bare)


def item_end(bare: str, start: int) -> int:
    """Behind the item that begins at `start`: at its semicolon, or at the end of its braces."""
    position = start
    while found := re.compile(r"[;{(\[]").search(bare, position):
        if found[0] == ";":
            return found.end()
        position = close_of(bare, found.start())
        if found[0] == "{":
            return position
    return len(bare)


@dataclass
class Struct:
    """A struct or enum, with its impl blocks."""

    crate: str
    name: str
    file: str
    fields: int = 0
    methods: int = 0


@dataclass
class Source:
    """A file of the workspace, without its tests."""

    path: str
    text: str
    blanked: Blanked = field(init=False)
    tests: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.blanked = Blanked(self.text)
        self.tests = []
        gate = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*")
        for found in gate.finditer(self.blanked.bare):
            if not self.is_test(found.start()):
                self.tests.append((found.start(), item_end(self.blanked.bare, found.end())))

    @property
    def crate(self) -> str:
        return self.path.split("/")[1]

    def is_test(self, position: int) -> bool:
        return any(start <= position < end for start, end in self.tests)

    def test_modules(self) -> list[str]:
        """Paths, without ending, of files that are tests because the module that names them is one."""
        here = PurePosixPath(self.path)
        folder = here.parent if here.name in ("lib.rs", "main.rs", "mod.rs") else here.with_suffix("")
        declared = (re.search(r"\bmod (\w+);", self.blanked.bare[start:end]) for start, end in self.tests)
        return [str(folder / found[1]) for found in declared if found]

    def lines(self) -> Counter:
        """Lines of code, of comment, blank ones, and of tests."""
        count = Counter()
        position = 0
        code = self.blanked.code.split("\n")
        for index, line in enumerate(self.text.split("\n")[: self.text.count("\n")]):
            if self.is_test(position):
                count["tests"] += 1
            elif code[index].strip():
                count["code"] += 1
            else:
                count["comments" if line.strip() else "blank"] += 1
            position += len(line) + 1
        return count

    def product(self) -> str:
        """The text without comments, strings and tests."""
        bare = self.blanked.bare
        for start, end in self.tests:
            bare = bare[:start] + re.sub(r"[^\n]", " ", bare[start:end]) + bare[end:]
        return bare


IMPL = re.compile(r"^[ \t]*(?:unsafe )?impl\b", re.M)
TYPE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))? )?(?:unsafe )?(struct|enum|union|trait|type) (\w+)", re.M)
FN = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))? )?(?:(?:const|async|unsafe|extern \"[^\"]*\") )*fn \w+", re.M)
ITEM = re.compile(
    r"^[ \t]*pub (?:(?:const|async|unsafe|extern(?: \"[^\"]*\")?) )*"
    r"(?:(?:fn|struct|enum|union|trait|type|static|const|mod) (\w+)|(\w+):(?!:))",
    re.M,
)


def head_of(bare: str, start: int) -> tuple[str, int]:
    """An impl or trait's head, and where its brace is."""
    brace = bare.find("{", start)
    return bare[start:brace], brace


def owner_of(head: str) -> str:
    """The type of an impl block, by its last name."""
    head = re.sub(r"\bwhere\b.*", "", head, flags=re.S)
    head = re.sub(r"^\s*(?:unsafe )?impl\s*", "", head)
    while (shorter := re.sub(r"<[^<>]*>", "", head.replace("->", "  "))) != head:
        head = shorter
    name = re.findall(r"\w+", head.rsplit(" for ", 1)[-1].split("+")[0].replace("dyn ", "").replace("mut ", ""))
    return name[-1] if name else ""


def commas(body: str) -> int:
    """Elements of a comma-separated list, at its own level."""
    depth, parts, current = 0, 0, ""
    for sign in re.sub(r"#\[[^\]]*\]|->", "", body):
        depth += (sign in "<({[") - (sign in ">)}]")
        if sign == "," and depth == 0:
            parts, current = parts + bool(current.strip()), ""
        else:
            current += sign
    return parts + bool(current.strip())


def undocumented(source: Source) -> list[str]:
    """Public items, and variants of public enums, above which no doc comment stands: place and name."""
    lines, bare = source.text.split("\n"), source.product()

    def has_docs(position: int) -> bool:
        above = iter(reversed(lines[: bare.count("\n", 0, position)]))
        for line in map(str.strip, above):
            if line.startswith("#[doc") or line.startswith("///"):
                return True
            if not line.endswith("]"):
                return False
            while not line.startswith("#["):
                line = next(above, "#[").strip()
        return False

    found_without = []
    for found in ITEM.finditer(bare):
        # A module in a file of its own says there what it is.
        if not re.match(r"\s*pub mod \w+$", found[0]) or bare[found.end()] != ";":
            found_without.append((found.start() + len(found[0]) - len(found[0].lstrip()), found[1] or found[2]))
    for found in re.finditer(r"^[ \t]*pub enum (\w+)[^{;]*\{", bare, re.M):
        depth, start = 0, found.end()
        for line in re.finditer(r"[^\n]+", bare[start : close_of(bare, start - 1) - 1]):
            variant = re.match(r"\s*([A-Z]\w*)", line[0])
            if depth == 0 and variant:
                found_without.append((start + line.start() + variant.start(1), f"{found[1]}::{variant[1]}"))
            depth += len(re.findall(r"[{(\[]", line[0])) - len(re.findall(r"[})\]]", line[0]))
    return [
        f"{source.path}:{bare.count(chr(10), 0, position) + 1} {name}"
        for position, name in sorted(found_without)
        if not has_docs(position)
    ]


class Tree:
    """A tree of the repository, read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob("crates/*/src/**/*.rs"))
        every = [Source(path, (root / path).read_text()) for path in paths]
        beside = [module for source in every for module in source.test_modules()]
        of_tests = tuple(f"{module}{end}" for module in beside for end in (".rs", "/"))
        self.test_files = [source for source in every if source.path.startswith(of_tests)]
        self.sources = [source for source in every if not source.path.startswith(of_tests)]
        self.types: dict[str, list[str]] = defaultdict(list)
        self.structs: list[Struct] = []
        self.read_types()

    def read_types(self) -> None:
        impls: list[tuple[str, str, str, int]] = []
        for source in self.sources:
            bare = source.product()
            inner: list[tuple[int, int]] = []
            for found in re.finditer(r"^[ \t]*(?:pub(?:\([^)]*\))? )?(?:unsafe )?trait \w+", bare, re.M):
                brace = bare.find("{", found.start())
                inner.append((brace, close_of(bare, brace)))
            for found in IMPL.finditer(bare):
                head, brace = head_of(bare, found.start())
                end = close_of(bare, brace)
                inner.append((brace, end))
                impls.append((source.crate, source.path, owner_of(head), len(FN.findall(bare[brace:end]))))
            for found in TYPE.finditer(bare):
                if any(start < found.start() < end for start, end in inner):
                    continue
                self.types[found[2]].append(source.path)
                if found[1] in ("struct", "enum", "union"):
                    struct = Struct(source.crate, found[2], source.path)
                    opening = re.compile(r"[;{(]").search(bare, found.end())
                    if found[1] == "struct" and opening and opening[0] != ";":
                        struct.fields = commas(bare[opening.end() : close_of(bare, opening.start()) - 1])
                    self.structs.append(struct)
        for crate, path, name, methods in impls:
            named = [struct for struct in self.structs if (struct.crate, struct.name) == (crate, name)]
            near = sorted(named, key=lambda struct: len(os.path.commonprefix([struct.file[:-3], path])), reverse=True)
            same = [struct for struct in near if struct.file == path]
            if same or near:
                (same or near)[0].methods += methods

    def lines(self) -> Counter:
        return sum((source.lines() for source in self.sources), Counter())

    def tests(self) -> int:
        inside = self.lines()["tests"] + sum(source.text.count("\n") for source in self.test_files)
        return inside + self.count("crates/*/tests/**/*.rs")

    def count(self, *patterns: str) -> int:
        paths = {path for pattern in patterns for path in self.root.glob(pattern) if path.is_file()}
        return sum(path.read_text(errors="replace").count("\n") for path in paths)

    def core_path(self) -> Counter:
        wanted = {f"crates/{listed.where}" for listed in CORE_PATH}
        return sum((source.lines() for source in self.sources if source.path in wanted), Counter())

    def has(self, crate_and_type: str) -> bool:
        crate, name = crate_and_type.split("/")
        return any(path.startswith(f"crates/{crate}/") for path in self.types.get(name, []))

    def wrong(self) -> list[str]:
        """What the hand-written lists say and the tree does not, and public items that say nothing of themselves."""
        listed = [(file, (self.root / "crates" / file.where).is_file()) for file in CORE_PATH]
        listed += [(form, self.has(form.where)) for form in FORMS]
        update = f"bring the lists in {Path(__file__).name} up to date"
        missing = [f"{one.where} is listed and missing: {update}" for one, there in listed if not (there or one.gone)]
        there = [f"{one.where} is called gone and is there: {update}" for one, there in listed if there and one.gone]
        silent = [item for source in self.sources for item in undocumented(source)]
        return missing + there + [f"{item} is public and has no comment: write one" for item in silent]

    def doubled(self) -> dict[str, list[str]]:
        return {name: places for name, places in sorted(self.types.items()) if len(places) > 1}

    def arrows(self) -> int:
        number = 0
        for manifest in self.root.glob("crates/*/Cargo.toml"):
            table = re.search(r"^\[dependencies\]\n(.*?)(?=^\[|\Z)", manifest.read_text(), re.M | re.S)
            number += len(re.findall(r"^pie-[\w-]+", table[1], re.M)) if table else 0
        return number

    def packages(self) -> int:
        arguments = ["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--no-dedupe", "--package", "pie"]
        output = subprocess.run(["cargo", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout
        return len({" ".join(line.split()[:2]) for line in output.splitlines() if line})

    def build(self) -> tuple[float, float]:
        """Wall and processor time, in seconds, of what the README's first command builds, from an empty target folder. What
        must be downloaded is downloaded before."""
        with tempfile.TemporaryDirectory(prefix="house-target-") as target:
            environment = {**os.environ, "CARGO_TARGET_DIR": target}
            subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=self.root, check=True)
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=self.root, env=environment, check=True)
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def figures(self, with_build: bool) -> dict[str, str]:
        lines, path = self.lines(), self.core_path()
        router = [struct for struct in self.structs if struct.crate in {"pie-router", "pie-group"}]
        files = sorted((source.text.count("\n"), source.path) for source in self.sources)
        fields, methods = attrgetter("fields"), attrgetter("methods")
        open_items = [item for source in self.sources for item in undocumented(source)]

        def largest(structs: list[Struct], of: Callable[[Struct], int]) -> str:
            struct = max(structs, key=of)
            return f"{of(struct)} ({struct.name})"

        def across(places: list[str]) -> bool:
            return len({place.split("/")[1] for place in places}) > 1

        figures = {
            "product code, lines": f"{lines['code']:,}",
            "comments beside it": f"{lines['comments']:,}",
            "whole files, blank lines and comments included": f"{lines['code'] + lines['comments'] + lines['blank']:,}",
            "tests": f"{self.tests():,}",
            "benches and examples": f"{self.count('crates/*/benches/**/*.rs', 'crates/*/examples/**/*.rs'):,}",
            "kernels (CUDA C++)": f"{self.count('crates/*/kernels/*.cu', 'crates/*/kernels/*.cuh'):,}",
            "emulated GPU (C++)": f"{self.count('emulator/*.*pp', 'crates/*/kernels/emulator/*.*pp'):,}",
            "core path, lines of code": f"{path['code']:,}",
            "core path, whole files": f"{path['code'] + path['comments'] + path['blank']:,}",
            "forms of an edit": str(sum(self.has(listed.where) for listed in FORMS)),
            "most fields in a struct of pie-router or pie-group": largest(router, fields),
            "most methods of a type of pie-router or pie-group": largest(router, methods),
            "most fields in a struct": largest(self.structs, fields),
            "most methods of a type": largest(self.structs, methods),
            "type names in several places": str(len(self.doubled())),
            "type names in several crates": str(sum(across(places) for places in self.doubled().values())),
            "crates": str(len(list(self.root.glob("crates/*/Cargo.toml")))),
            "arrows between crates": str(self.arrows()),
            "public items without docs": str(len(open_items)),
            "files": str(len(files)),
            "median file, lines": f"{statistics.median(length for length, _ in files):.0f}",
            "longest file, lines": f"{files[-1][0]} ({files[-1][1].removeprefix('crates/')})",
            "packages in the default build": str(self.packages()),
        }
        if with_build:
            wall, processors = self.build()
            figures["cold build, wall time"] = f"{wall / 60:.1f} min"
            figures["cold build, processor time"] = f"{processors / 60:.1f} min"
        return figures


@contextlib.contextmanager
def tree_of(commit: str | None) -> Iterator[Tree]:
    """The working tree, or a commit in a folder that goes again."""
    if commit is None:
        yield Tree(ROOT)
        return
    with tempfile.TemporaryDirectory(prefix="house-") as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Tree(Path(folder))


def details(tree: Tree, names: bool, structs: bool, docs: bool) -> None:
    if docs:
        print("\n" + "\n".join(item for source in tree.sources for item in undocumented(source)))
    if names:
        print("\n| type name | places | where |\n| --- | --- | --- |")
        for name, places in sorted(tree.doubled().items(), key=lambda pair: -len(pair[1])):
            where = ", ".join(place.removeprefix("crates/").replace("/src/", "/") for place in places)
            print(f"| {name} | {len(places)} | {where} |")
    if structs:
        print("\n| type | fields | methods |\n| --- | --- | --- |")
        large = sorted(tree.structs, key=lambda struct: struct.fields + struct.methods, reverse=True)
        for struct in large[:STRUCTS_SHOWN]:
            print(f"| {struct.name} ({struct.file.removeprefix('crates/')}) | {struct.fields} | {struct.methods} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", help="a commit in place of the working tree")
    parser.add_argument("--before", help="a commit to stand beside it")
    parser.add_argument("--names", action="store_true", help="list type names that stand in several places")
    parser.add_argument("--structs", action="store_true", help="list the largest structs")
    parser.add_argument("--undocumented", action="store_true", help="list public items without docs")
    parser.add_argument("--build", action="store_true", help="time a cold build of each tree")
    options = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    for commit in [options.before, options.commit] if options.before else [options.commit]:
        with tree_of(commit) as tree:
            columns[commit or "working tree"] = tree.figures(options.build)
            wrong = [] if commit else tree.wrong()
    print(f"| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")
    details(tree, options.names, options.structs, options.undocumented)
    for what in wrong:
        print(f"error: {what}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
