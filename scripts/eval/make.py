"""Makes crates/pie-eval/data: a set for next-line prediction in the form of RepoBench-C, and the README.md beside it.

The sources are the held-out test packages of the training corpus, so a model from scripts/train never saw them. Run
scripts/train/corpus.py first; then, with Python 3.11:

    pip install tokenizers==0.23.2
    python3 scripts/eval/make.py [--corpus FILE] [--tokenizer FILE] [--seed NUMBER]

Python and Java, 200 samples in each of RepoBench's settings:

* cross_file_first: the line where a name from another file of the package is first used;
* cross_file_random: a later line that uses such names, none of them for the first time;
* in_file: a line that uses none.

RepoBench joins a prompt from its parts as `join_prompt` does: the definitions that the file imports, commented out
under their paths; the file's path; its import statements; the rest of the file up to the line that is asked for.
What does not fit is left out: whole definitions, and lines at the file's beginning.

The same corpus, tokenizer and seed give the same bytes.
"""

import argparse
import ast
import csv
import gzip
import io
import json
import random
import re
import textwrap
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "crates/pie-eval/data"
SETTINGS = ["cross_file_first", "cross_file_random", "in_file"]
COMMENT = {"python": "#", "java": "//"}

SAMPLES = 200
SAMPLES_PER_FILE = 4
# The model's context is 4,096 tokens; what is left is for the answer and for what an edit inserts.
PROMPT_TOKENS = 3_600
# Each prompt aims at a length between these, so that lengths spread; short files with few imports fall below.
AIMED_TOKENS = (2_400, 3_550)
SHORTEST_PROMPT = 1_500
# The part of a prompt that the file itself may fill when there are definitions enough for the rest.
FILE_SHARE = (0.35, 0.7)
# RepoBench lets a model write 64 tokens: a line must be within reach.
ANSWER_TOKENS = 60
# A definition longer than this is shown as its outline, an outline cut off here.
SNIPPET_LINES = 60
# Names can lead through the package's __init__ files: from one to the next at most so often.
HOPS = 5
# So little before the line asked for would make a guess of it.
LINES_BEFORE = 5


@dataclass
class Snippet:
    """A definition in another file."""

    path: str
    text: str


@dataclass
class File:
    """A source file as the samples need it. Lines are numbered from 1."""

    package: str
    path: str
    import_statement: str
    # What is left without the import statements.
    code: list[tuple[int, str]]
    # Lines that may be asked for: code, not comments, not parts of texts, not imports.
    targets: set[int]
    # The definitions that the imported names stand for.
    snippets: dict[str, Snippet]
    # Line → the names from other files that it uses.
    uses: dict[int, set[str]]
    # Words that mark a line as touching the package, whether or not its definition was found.
    inside: set[str] = field(default_factory=set)


def without_imports(lines, import_lines):
    """The numbered lines that are no imports, at most two empty ones in a row, none in front."""
    kept, empty = [], 2
    for number, line in enumerate(lines, 1):
        if number in import_lines:
            continue
        empty = 0 if line.strip() else empty + 1
        if empty <= 2:
            kept.append((number, line.rstrip()))
    return kept


# Python


class PythonModule:
    """What a module defines and what it imports, by name."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.split("\n")
        self.tree = ast.parse(text)
        parts = path.removesuffix(".py").split("/")
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.definitions, self.imported = {}, {}
        for node in self.statements(self.tree.body):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                self.definitions.setdefault(node.name, node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        self.definitions.setdefault(target.id, node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                for local, module, name in self.names(node):
                    self.imported[local] = (module, name)

    def statements(self, body):
        """The module's own statements, those under `if` and `try` too."""
        for node in body:
            yield node
            if isinstance(node, ast.If):
                yield from self.statements(node.body + node.orelse)
            elif isinstance(node, ast.Try):
                yield from self.statements(node.body + [n for handler in node.handlers for n in handler.body] + node.orelse)

    def names(self, node):
        """An import's local names, each with its module and its name there; no name if it is the module itself."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds a.
                bound = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or bound, bound, None
            return
        module = node.module or ""
        if node.level:
            parents = self.name.split(".")
            parents = parents[:len(parents) - node.level + self.is_package]
            module = ".".join(parents + ([module] if module else []))
        for alias in node.names:
            if alias.name != "*":
                yield alias.asname or alias.name, module, alias.name


def resolve(modules, module, name, hops=HOPS):
    """Where a name is defined: (module, node), or (module, None) if it is a module; nothing if it is not in the package."""
    if name is None:
        return (modules[module], None) if module in modules else None
    if module in modules:
        source = modules[module]
        if name in source.definitions:
            return source, source.definitions[name]
        if name in source.imported and hops:
            found = resolve(modules, *source.imported[name], hops - 1)
            if found:
                return found
    inner = f"{module}.{name}"
    return (modules[inner], None) if inner in modules else None


def first_line(node):
    """A node's first line, decorators included."""
    return min([node.lineno] + [decorator.lineno for decorator in getattr(node, "decorator_list", [])])


def head(module, node):
    """What stands before the body of a class or function, without the comments there."""
    lines = module.lines[first_line(node) - 1:first_line(node.body[0]) - 1]
    while lines and (not lines[-1].strip() or lines[-1].strip().startswith("#")):
        lines.pop()
    return lines


def python_snippet(module, node):
    """The definition's source; a long class is shown by its members' signatures, a long function by its beginning."""
    lines = module.lines[first_line(node) - 1:node.end_lineno]
    if len(lines) > SNIPPET_LINES and isinstance(node, ast.ClassDef):
        lines = head(module, node)
        for member in node.body:
            indent = " " * member.col_offset
            if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and member.body[0].lineno > member.lineno:
                lines += head(module, member) + [indent + "    ..."]
            elif isinstance(member, ast.Expr) and isinstance(member.value, ast.Constant) and isinstance(member.value.value, str):
                lines.append(f'{indent}"""{member.value.value.strip().partition(chr(10))[0]}"""')
            else:
                lines += module.lines[first_line(member) - 1:member.end_lineno]
    if len(lines) > SNIPPET_LINES:
        lines = lines[:SNIPPET_LINES] + [re.match(r"\s*", lines[SNIPPET_LINES]).group() + "..."]
    return Snippet(module.path, textwrap.dedent("\n".join(lines)).strip("\n"))


def only_imports(node):
    """Import statements, and `if TYPE_CHECKING:` blocks of them."""
    if isinstance(node, ast.If):
        return all(isinstance(inner, (ast.Import, ast.ImportFrom)) for inner in node.body + node.orelse)
    return isinstance(node, (ast.Import, ast.ImportFrom))


def python_targets(module):
    """Lines of code: no comments, docstrings, imports, and not within a text of several lines."""
    barred = set()
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            barred.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno > node.lineno:
            barred.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            barred.update(range(node.lineno, node.end_lineno + 1))
    return {number for number, line in enumerate(module.lines, 1) if number not in barred and not line.strip().startswith("#")}


def python_file(package, module, modules):
    roots = {name.split(".")[0] for name in modules}
    # A name that is also bound here, as an argument or a variable, does not always mean the import.
    bound, inside = set(), set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            inside |= {local for local, source, _ in module.names(node) if source.split(".")[0] in roots}
    own = {local: source for local, source in module.imported.items() if local in inside and local not in bound}

    snippets, uses = {}, defaultdict(set)

    def use(key, line, found):
        if found and found[1] and found[0] is not module:
            snippets.setdefault(key, python_snippet(*found))
            uses[line].add(key)

    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in own:
            # `module.name`: the module itself is no definition, what is taken from it is.
            found = resolve(modules, *own[node.value.id])
            if found and found[1] is None:
                use(f"{node.value.id}.{node.attr}", node.value.lineno, resolve(modules, found[0].name, node.attr))
        elif isinstance(node, ast.Name) and node.id in own:
            use(node.id, node.lineno, resolve(modules, *own[node.id]))

    import_lines = set()
    for node in module.tree.body:
        if only_imports(node):
            import_lines.update(range(node.lineno, node.end_lineno + 1))
    order = {name: at for at, name in enumerate(module.imported)}
    snippets = dict(sorted(snippets.items(), key=lambda item: (order[item[0].split(".")[0]], item[0])))
    imports = "\n".join(line.rstrip() for number, line in enumerate(module.lines, 1) if number in import_lines and line.strip())
    return File(package, module.path, imports, without_imports(module.lines, import_lines), python_targets(module), snippets,
                uses, inside)


def python_files(sources):
    for package, texts in sources.items():
        modules = {}
        for path, text in texts.items():
            module = PythonModule(path, text)
            modules[module.name] = module
        for module in modules.values():
            yield python_file(package, module, modules)


# Java

JAVA_TEXTS = re.compile(r'(//[^\n]*|/\*.*?\*/)|"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
JAVA_IMPORT = re.compile(r"\s*import\s+(static\s+)?([\w.$]+?)(\.\*)?\s*;")
JAVA_TYPE = re.compile(r"\b(?:class|interface|enum|record)\s+(\w+)")


def blanked(match):
    """A comment or text as spaces, so that lines and columns stay."""
    return re.sub(r"[^\n]", " ", match.group())


def java_snippet(path, text):
    """The class without its comments; a long one is shown by its members' declarations."""
    text = JAVA_TEXTS.sub(lambda match: "" if match.group(1) else match.group(), text)
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    lines = [line for line in lines if not JAVA_IMPORT.match(line) and not line.startswith("package ")]
    if len(lines) > SNIPPET_LINES:
        outline, depth = [], 0
        for line in lines:
            code = JAVA_TEXTS.sub(blanked, line)
            after = depth + code.count("{") - code.count("}")
            if depth <= 1:
                outline.append(f"{line} ... }}" if depth == 1 and after > 1 else line)
            depth = after
        lines = outline
    if len(lines) > SNIPPET_LINES:
        lines = lines[:SNIPPET_LINES] + ["    ..."]
    return Snippet(path, "\n".join(lines))


def java_file(package, path, text, classes):
    lines = text.split("\n")
    masked = JAVA_TEXTS.sub(blanked, text).split("\n")
    folder = path.rpartition("/")[0].replace("/", ".")
    packages = {name.rpartition(".")[0] for name in classes}
    declared = set(JAVA_TYPE.findall("\n".join(masked)))

    import_lines, imported, inside = set(), {}, set()
    for number, line in enumerate(masked, 1):
        found = JAVA_IMPORT.match(line)
        if not found:
            continue
        import_lines.add(number)
        static, name, every = found.groups()
        if every and not static:
            imported |= {one.rpartition(".")[2]: one for one in classes if one.rpartition(".")[0] == name}
        elif not every:
            local = name.rpartition(".")[2]
            if not static and name in classes:
                imported[local] = name
            # A class in a class, a static member, or a class whose file the corpus dropped.
            elif any(name.startswith(f"{one}.") for one in packages):
                inside.add(local)
    # Classes of the same package need no import; an imported name goes first.
    explicit = {JAVA_IMPORT.match(masked[number - 1]).group(2).rpartition(".")[2] for number in import_lines}
    for name in classes:
        simple = name.rpartition(".")[2]
        if name.rpartition(".")[0] == folder and simple not in explicit:
            imported.setdefault(simple, name)
    inside |= set(imported)
    names = {name for name in imported if name not in declared}

    uses, used = defaultdict(set), set()
    for number, line in enumerate(masked, 1):
        if number not in import_lines:
            here = set(re.findall(r"(?<![\w.$])[A-Z$][\w$]*", line)) & names
            if here:
                uses[number] = here
                used |= here
    snippets = {name: java_snippet(classes[imported[name]][0], classes[imported[name]][1]) for name in imported if name in used}
    barred = import_lines | {number for number, line in enumerate(masked, 1) if line.startswith("package ")}
    targets = {number for number, line in enumerate(masked, 1) if line.strip() and number not in barred}
    imports = "\n".join(lines[number - 1].rstrip() for number in sorted(import_lines))
    return File(package, path, imports, without_imports(lines, import_lines), targets, snippets, uses, inside)


def java_files(sources):
    for package, texts in sources.items():
        classes = {path.removesuffix(".java").replace("/", "."): (path, text) for path, text in texts.items()}
        for path, text in texts.items():
            yield java_file(package, path, text, classes)


# Samples


def says_something(line):
    """More than brackets and one word: something to predict."""
    words = re.findall(r"\w+", line)
    return len(words) >= 2 and any(re.match(r"[A-Za-z_]\w", word) for word in words) and len("".join(line.split())) >= 9


def lines_asked_for(file):
    """The lines of each setting."""
    lines = dict(file.code)
    word = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, sorted(file.inside))) + r")(?!\w)")
    chosen, seen, before, previous = {setting: [] for setting in SETTINGS}, set(), 0, ""
    for number in sorted(lines):
        line = lines[number]
        names = file.uses.get(number, set())
        new = names - seen
        seen |= names
        # Right after the same line, copying would do.
        fit = number in file.targets and says_something(line) and before >= LINES_BEFORE and line.strip() != previous
        if fit and names:
            chosen["cross_file_first" if new else "cross_file_random"].append(number)
        elif fit and not (file.inside and word.search(line)):
            chosen["in_file"].append(number)
        if line.strip():
            before, previous = before + 1, line.strip()
    return chosen


def commented(snippet, sign):
    return "\n".join(f"{sign} {line}" for line in [f"Path: {snippet.path}", *snippet.text.split("\n")])


def join_prompt(context, sign, path, import_statement, code):
    return f"{context}\n{sign} Path: {path}\n{import_statement}\n\n{code}"


class Samples:
    """Makes samples that fit the tokenizer's budget."""

    def __init__(self, language, tokenizer):
        self.language, self.sign, self.tokenizer = language, COMMENT[language], tokenizer
        self.sizes = {}

    def tokens(self, text):
        if text not in self.sizes:
            self.sizes[text] = len(self.tokenizer.encode(text).ids)
        return self.sizes[text]

    def make(self, file, number, chance):
        """The sample that asks for this line, and the tokens of its prompt; nothing if it cannot be had."""
        answer = next(line for at, line in file.code if at == number)
        if not file.snippets or self.tokens(answer) > ANSWER_TOKENS:
            return None
        before = [line for at, line in file.code if at < number]
        while not before[-1]:
            before.pop()
        aimed = chance.randint(*AIMED_TOKENS)
        room = aimed - self.tokens(f"{self.sign} Path: {file.path}\n{file.import_statement}\n\n")

        # What the line uses comes along in any case; then others, by chance, as long as they fit.
        needed = file.uses.get(number, set())
        others = [name for name in file.snippets if name not in needed]
        chance.shuffle(others)
        sizes = [self.tokens(line + "\n") - 1 for line in before]
        file_room = max(min(sum(sizes), int(room * chance.uniform(*FILE_SHARE))), 0)
        taken, left = {}, room
        for name in [*sorted(needed), *others]:
            text = commented(file.snippets[name], self.sign)
            size = 0 if text in taken.values() else self.tokens(text)
            if name in needed or size <= left - file_room:
                taken[name] = text
                left -= size
        # Of the file, the lines nearest to the one asked for.
        first = len(before)
        while first > 0 and sizes[first - 1] <= left:
            first -= 1
            left -= sizes[first]
        code = before[first:]
        while code and not code[0]:
            code.pop(0)
        if not taken or sum(1 for line in code if line) < LINES_BEFORE:
            return None
        context = "\n".join(dict.fromkeys(taken[name] for name in file.snippets if name in taken))
        code = "\n".join(code) + "\n"
        prompt = join_prompt(context, self.sign, file.path, file.import_statement, code)
        count = len(self.tokenizer.encode(prompt).ids)
        if count > PROMPT_TOKENS:
            return None
        # Each part and then the prompt: what gzip has just seen costs nearly nothing.
        sample = {"repo_name": file.package, "file_path": file.path, "context": context,
                  "import_statement": file.import_statement, "code": code, "prompt": prompt, "next_line": answer}
        return sample, count


def in_turn(lists):
    """The lists' items in turn, until all are used up."""
    lists = [iter(items) for items in lists]
    while lists:
        for items in list(lists):
            try:
                yield next(items)
            except StopIteration:
                lists.remove(items)


def drawn(queue, samples, chance, short, answers, per_file):
    """A package's samples, made as they are asked for: its files in turn, a few lines of each, no two lines the same."""
    for file, number in in_turn(queue):
        if per_file[file.path] == SAMPLES_PER_FILE:
            continue
        made = samples.make(file, number, chance)
        if not made or (made[1] < SHORTEST_PROMPT) != short or made[0]["next_line"].strip() in answers:
            continue
        per_file[file.path] += 1
        answers.add(made[0]["next_line"].strip())
        yield made


def choose(language, files, tokenizer, setting, seed):
    """Samples from the packages in turn; those with short prompts only if there are not enough others."""
    chance = random.Random(f"{seed} {language} {setting}")
    samples = Samples(language, tokenizer)
    by_package = defaultdict(list)
    for file in files:
        numbers = lines_asked_for(file)[setting]
        chance.shuffle(numbers)
        if numbers:
            # Some lines cannot be had, so a few more are tried than a file may give.
            by_package[file.package].append([(file, number) for number in numbers[:3 * SAMPLES_PER_FILE]])
    kept, answers, per_file = [], set(), Counter()
    for short in (False, True):
        for queue in by_package.values():
            chance.shuffle(queue)
        for made in in_turn([drawn(queue, samples, chance, short, answers, per_file) for queue in by_package.values()]):
            if len(kept) == SAMPLES:
                break
            kept.append(made)
    chance.shuffle(kept)
    return kept


def notices(package, folder):
    """What a package's archive says of its licence and authors."""
    if package["language"] == "python":
        archive = next(folder.glob(f"python/{package['name']}-{package['version']}-*.whl"))
        wanted = re.compile(r"\.dist-info/(licenses/)?LICEN[SC]E[^/]*$")
    else:
        archive = folder / f"java/jars/{package['name'].split(':')[1]}-{package['version']}-sources.jar"
        wanted = re.compile(r"^META-INF/NOTICE[^/]*$")
    with zipfile.ZipFile(archive) as files:
        texts = [files.read(name).decode() for name in sorted(files.namelist()) if wanted.search(name)]
        if not texts:
            # No notice: the copyright line that most sources carry.
            sources = "".join(files.read(name).decode() for name in files.namelist() if name.endswith(".java"))
            texts = [Counter(re.findall(r"Copyright [^\n]*", sources)).most_common(1)[0][0]]
    return "\n".join(line.rstrip() for text in texts for line in text.strip().split("\n"))


def licences(packages, folder):
    """The packages' terms. That of the Java packages is the Apache License 2.0, which the repository's root holds."""
    parts = ["The samples in this folder, and the lines in ../tests/data/metrics.jsonl, are excerpts of these packages, under these\n"
             "terms. For \"Apache-2.0\" that is the text in the file LICENSE at the root of this repository, and here are the\n"
             "packages' own notices."]
    for package in packages:
        title = f"{package['name']} {package['version']}: {package['licence']}"
        parts.append(f"{title}\n{'-' * len(title)}\n\n{notices(package, folder)}")
    return "\n\n\n".join(parts) + "\n"


def written(samples):
    """The file's bytes. Without a time and a name in it, gzip gives the same bytes again."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as out:
        for sample, _ in samples:
            out.write((json.dumps(sample, ensure_ascii=False) + "\n").encode())
    return buffer.getvalue()


README = """\
# The built-in evaluation set

Next-line prediction in the form of RepoBench-C, from published packages. `scripts/eval/make.py` writes this folder, this
file included; it is made again, from the root of the repository, by

    python3 scripts/train/corpus.py && pip install tokenizers==0.23.2 && python3 scripts/eval/make.py

## Form

One file of gzipped JSON lines for each language and setting; the fields are those of the published `tianyang/repobench-c`:

| field | |
| --- | --- |
| `repo_name`, `file_path` | the package; the file in it |
| `context` | definitions from other files that the file imports, commented out, each under its path |
| `import_statement` | the file's import statements |
| `code` | the rest of the file, up to the line that is asked for |
| `prompt` | what a model is given: `context`, a comment with the path, `import_statement`, an empty line, `code` |
| `next_line` | the line that is asked for, with its indentation |

The settings are RepoBench's. `cross_file_first`: the line uses a name from another file of the package that no line before it
used. `cross_file_random`: it uses such names, none for the first time. `in_file`: it uses none.

## Contents

| file | samples | source files | tokens of a prompt: mean (least, most) | kB |
| --- | --- | --- | --- | --- |
{contents}

Tokens are those of `models/pie-coder-10m/tokenizer.json`, the begin-of-sentence token included.

| language | package | version | licence | samples |
| --- | --- | --- | --- | --- |
{packages}

The samples are excerpts of these packages, under the packages' own licences and their authors' copyright: `LICENCES.txt`.
They are the test split of `scripts/train/packages.csv`: the models that `scripts/train` makes did not learn from them. Other
models may have.

## How the lines are chosen

* Packages take turns, and within a package its files; a setting asks for at most {per_file} lines of a source file, and for no
  line twice, wherever it stands.
* A line has at least two words, is no comment, import, docstring or part of a text over several lines, does not follow
  a line like it, and has {before} lines or more of its file before it.
* Python's imports are followed through the package's `__init__` files to the definition. Java's are classes of the package,
  imported or in the same Java package. The definitions that the line uses are always in `context`.
* A definition of more than {snippet} lines is shown by its members' declarations, or its beginning. Comments in Java's
  definitions are left out.
* A prompt aims at {low} to {high} tokens, drawn by chance, and has at most {most}: definitions that do not fit are left out
  whole, then lines at the file's beginning. Empty lines before the line that is asked for are left out, as RepoBench does since
  its version 1.1; the prompt ends with one line break.

## Limits

* Few packages of one kind each: figures of this set say something about a change in one model, little about models
  in general, and are not comparable to published figures of RepoBench.
* RepoBench parses with tree-sitter, and its snippets are not shortened as these are. Its prompts of 8k are longer.
* Names are matched, types are not inferred: a method of another file's class, called on a variable, counts as in-file.
* Files that the corpus dropped (tests, generated files, near-duplicates) give neither lines nor definitions.
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", type=Path, default=Path.home() / ".cache/pie-pool/train/test.jsonl")
    arguments.add_argument("--tokenizer", type=Path, default=ROOT / "models/pie-coder-10m/tokenizer.json")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    tokenizer = Tokenizer.from_file(str(given.tokenizer))
    sources = {language: defaultdict(dict) for language in COMMENT}
    with given.corpus.open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if line["language"] in sources:
                sources[line["language"]][line["package"]][line["path"]] = line["text"]
    files = {"python": list(python_files(sources["python"])), "java": list(java_files(sources["java"]))}

    DATA.mkdir(parents=True, exist_ok=True)
    contents, per_package = [], Counter()
    for language in COMMENT:
        for setting in SETTINGS:
            samples = choose(language, files[language], tokenizer, setting, given.seed)
            data = written(samples)
            (DATA / f"{language}_{setting}.jsonl.gz").write_bytes(data)
            counts = [count for _, count in samples]
            per_package.update((language, sample["repo_name"]) for sample, _ in samples)
            paths = {(sample["repo_name"], sample["file_path"]) for sample, _ in samples}
            contents.append(f"| `{language}_{setting}.jsonl.gz` | {len(samples)} | {len(paths)} | {sum(counts) / len(counts):,.0f} "
                            f"({min(counts):,}, {max(counts):,}) | {len(data) / 1000:.0f} |")
            print(contents[-1], flush=True)
    packages = [package for package in csv.DictReader((ROOT / "scripts/train/packages.csv").open())
                if package["split"] == "test" and package["language"] in COMMENT]
    (DATA / "LICENCES.txt").write_text(licences(packages, given.corpus.parent / "packages"), encoding="utf-8")
    packages = [f"| {package['language']} | {package['name']} | {package['version']} | {package['licence']} | "
                f"{per_package[package['language'], package['name']]} |"
                for package in packages]
    (DATA / "README.md").write_text(README.format(
        contents="\n".join(contents), packages="\n".join(packages), per_file=SAMPLES_PER_FILE, before=LINES_BEFORE,
        snippet=SNIPPET_LINES, low=f"{AIMED_TOKENS[0]:,}", high=f"{AIMED_TOKENS[1]:,}", most=f"{PROMPT_TOKENS:,}"))


if __name__ == "__main__":
    main()
