"""Makes crates/pie-eval/tests/data: what RepoBench's metrics and its rule for the first line say, on seeded examples.

`metrics.jsonl` holds 1,000 pairs of a predicted and a true line: lines of code from the corpus' test packages
(scripts/train/corpus.py makes them), changed by chance. `first_line.jsonl` holds completions, and which of their lines counts.

    pip install fuzzywuzzy==0.18.0 python-Levenshtein==0.27.5 rapidfuzz==3.14.6
    python3 scripts/eval/metrics.py [--corpus FILE] [--seed NUMBER]

Fields of `metrics.jsonl`:

* `exact_match`: the lines are the same words, split at what Python calls white space. That is Unicode's, and U+001C to
  U+001F too.
* `edit_similarity`: `fuzzywuzzy.fuzz.ratio(truth, prediction)` as RepoBench's own requirements install it, 0 to 100.
* `edit_similarity_levenshtein`: the same call where python-Levenshtein is installed too.
* `ratio`: `rapidfuzz.fuzz.ratio`, which is the latter before it is rounded.

Fuzzywuzzy gives 100 for equal lines, two empty ones too, and 0 if only one is empty. Else it takes 100 times a ratio of
its matcher, in doubles, rounded to the nearest integer, halves to the even one. Lengths count code points. The matcher
depends on what is installed:

* Without python-Levenshtein it is difflib's SequenceMatcher: 2 M / T, where T is both lengths together and M the characters in
  the blocks that difflib finds: the longest common block, then the same to its left and to its right. That is at most
  the longest common subsequence, often less. It depends on the order of the arguments; RepoBench's eval.py hands the truth
  over first. If the second, the prediction, has 200 characters or more, no block is found by characters that come more than
  1 + length / 100 times in it (the division without rest), a block only grows over them at its ends.
* With python-Levenshtein it is 1 - D / T, where D counts insertions and deletions, so 2 M / T for the longest common
  subsequence. It does not depend on the order.

RepoBench's requirements.txt names fuzzywuzzy (0.18.0 at first), later difflib beside it, and never python-Levenshtein,
which fuzzywuzzy does not require either. So difflib's is the reference. Published figures may stem from
environments that had python-Levenshtein all the same.
"""

import argparse
import difflib
import json
import random
import re
from collections import Counter
from pathlib import Path

from fuzzywuzzy import fuzz
from fuzzywuzzy.StringMatcher import StringMatcher
from rapidfuzz import fuzz as rapidfuzz

DATA = Path(__file__).resolve().parents[2] / "crates/pie-eval/tests/data"
PAIRS = 1_000
SPACES = [" ", "  ", "\t", "\u00a0", "\u3000", "\x1f"]
FOREIGN = ["é", "e\u0301", "ß", "ñ", "Ω", "漢", "字", "日本語", "и", "🙂", "👩\u200d💻", "\u200b", "İ", "ﬁ", "\U0001d49c"]
# Pairs that chance would hardly find.
SPECIAL = [
    ("", ""), ("", "x"), ("x", ""), ("", "return value"), ("return value", ""), (" ", ""), ("", " "), (" ", "  "), ("\t", " "),
    ("x", "x"), ("x", "y"), ("x ", "x"), ("a b", "ab"), ("a  b", "a b"), ("a\u00a0b", "a b"), ("a\x1cb", "a b"), ("a\u200bb", "a b"),
    ("é", "e\u0301"), ("ß", "ss"), ("🙂", "🙂"), ("🙂", "🙃"), ("ab", "ba"), ("abcd", "dcba"), ("abcabba", "cbabac"),
    # Halves: 12.5, 37.5, 62.5 and 87.5 before they are rounded.
    ("a234567890", "abcdef"), ("abc45678", "abcdefgh"), ("abcde678", "abcdefgh"), ("abcdefg8", "abcdefgh"), ("axxxxxxx", "abcdefgh"),
    # Order counts: a block found first may bar a longer way.
    ("tide", "diet"), ("diet", "tide"), ("self.cache = {}", "self._cache: dict = {}"), ("ababbabab", "babab"),
]


def code_lines(corpus):
    """Lines of code with something on them, by language."""
    lines = []
    with corpus.open(encoding="utf-8") as sources:
        for source in map(json.loads, sources):
            if source["language"] in ("python", "java"):
                lines += [line.rstrip() for line in source["text"].split("\n") if len(line.split()) >= 2 and len(line) < 160]
    return sorted(set(lines))


def edited(line, chance):
    """A few characters put in, taken out or replaced."""
    characters = list(line)
    for _ in range(chance.choice([1, 1, 2, 3, 5, 10])):
        at = chance.randrange(len(characters) + 1)
        kind = chance.choice("irdt")
        if kind == "i" or not characters:
            characters.insert(at, chance.choice("abcdefgxyz_0123456789 ().,=\"'"))
        elif kind == "r" and at < len(characters):
            characters[at] = chance.choice("abcdefgxyz_ ()")
        elif kind == "d" and at < len(characters):
            del characters[at]
        elif at + 1 < len(characters):
            characters[at], characters[at + 1] = characters[at + 1], characters[at]
    return "".join(characters)


def reworded(line, other, chance):
    """Words changed as a model would: one from another line, one dropped, one twice, two in the other order."""
    words = re.findall(r"\w+|\W", line)
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(len(words))
        kind = chance.choice("odts")
        if kind == "o":
            words[at] = chance.choice(re.findall(r"\w+", other) or ["x"])
        elif kind == "d" and len(words) > 1:
            del words[at]
        elif kind == "t":
            words.insert(at, words[at])
        else:
            to = chance.randrange(len(words))
            words[at], words[to] = words[to], words[at]
    return "".join(words)


def respaced(line, chance):
    """Other white space, in front, between words or at the end."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice(["", "  ", "    ", "\t", "\t\t"]) + line.lstrip()
    if kind == 1:
        return line + chance.choice([" ", "   ", "\t", "\r"])
    words = line.split(" ")
    at = chance.randrange(1, len(words))
    return " ".join(words[:at]) + chance.choice(SPACES + [""]) + " ".join(words[at:])


def foreign(line, chance):
    characters = list(line)
    for _ in range(chance.randint(1, 4)):
        characters.insert(chance.randrange(len(characters) + 1), chance.choice(FOREIGN))
    return "".join(characters)


def pairs(lines, chance):
    """Predictions with their truths; no pair twice."""
    seen = dict.fromkeys(SPECIAL)
    while len(seen) < PAIRS:
        truth, other = chance.choice(lines), chance.choice(lines)
        kind = chance.choices(["same", "edit", "word", "space", "other", "start", "more", "case", "foreign", "long"],
                              [6, 28, 22, 12, 10, 5, 4, 2, 6, 5])[0]
        if kind == "same":
            prediction = truth
        elif kind == "edit":
            prediction = edited(truth, chance)
        elif kind == "word":
            prediction = reworded(truth, other, chance)
        elif kind == "space":
            prediction = respaced(truth, chance)
        elif kind == "other":
            prediction = other
        elif kind == "start":
            prediction = truth[:chance.randrange(1, len(truth))]
        elif kind == "more":
            prediction = truth + " " + other.strip()
        elif kind == "case":
            prediction = truth.swapcase()
        elif kind == "foreign":
            truth = foreign(truth, chance) if chance.random() < 0.5 else truth
            prediction = foreign(truth, chance)
        else:
            # Past 200 characters difflib changes its ways.
            truth = " ".join(line.strip() for line in chance.sample(lines, chance.randint(3, 20)))
            prediction = reworded(edited(truth, chance), other, chance)
            if chance.random() < 0.3:
                half = len(prediction) // 2
                prediction = prediction[half:] + prediction[:half]
        seen[prediction, truth] = None
    return list(seen)


def similarity(matcher, prediction, truth):
    """Fuzzywuzzy chooses its matcher when it is loaded; this is that choice."""
    fuzz.SequenceMatcher = matcher
    return fuzz.ratio(truth, prediction)


def measured(prediction, truth):
    return {
        "prediction": prediction,
        "truth": truth,
        "exact_match": prediction.split() == truth.split(),
        "edit_similarity": similarity(difflib.SequenceMatcher, prediction, truth),
        "edit_similarity_levenshtein": similarity(StringMatcher, prediction, truth),
        "ratio": rapidfuzz.ratio(truth, prediction),
    }


MARKS = {"python": (('"""', "'''"), ('"""', "'''"), "#"), "java": ("/*", "*/", "//")}


def first_line(language, completion):
    """The line of a completion that RepoBench compares: the first that is neither empty nor a comment.

    A line that starts as a text in three quotes (Python) or a block comment (Java) begins a comment, and the comment ends with
    a later line that ends as one; so a comment that begins and ends on one line goes on, and either kind of quotes ends
    either. If there is no such line, it is the first line, line breaks in front of it aside, whatever it holds.
    """
    begin, end, sign = MARKS[language]
    lines = completion.lstrip("\n").split("\n")
    within = False
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if within:
            within = not text.endswith(end)
        elif text.startswith(begin):
            within = True
        elif not text.startswith(sign):
            return line
    return lines[0]


COMPLETIONS = {
    "python": [
        "    return value",
        "    return value\n    # done\n",
        "\n\n    return value\n",
        "    \n\t\n    x = 1\n    y = 2",
        "    # why\n    x = 1",
        "# one\n# two\n\n# three\nx = 1",
        "    x = 1  # why",
        "    '''Text.\n    More.\n    '''\n    x = 1",
        '    """Text.\n\n    More."""\n    x = 1',
        '    """Text."""\n    x = 1\n    y = 2',
        '    """Text."""\n    x = 1\n    """More."""\n    y = 2',
        '    """\n    Text.\n    \'\'\'\n    x = 1',
        '    """\n    # within\n    """\n    # behind\n    x = 1',
        '"""',
        '"""never ends\nx = 1',
        '    x = """a\n    b"""',
        '    r"""Text."""\n    x = 1',
        "    # only a comment",
        "\n\n# only\n# comments\n",
        "",
        "\n",
        "\n\n\n",
        "   ",
        "   \n\n  ",
        " \n# comment",
        "#!shebang\r\nx = 1\r\n",
        "\r\nx = 1",
        "\u3000# comment\n\u00a0x = 'é'",
        "\x1f\nx = 1",
        "\ufeff# comment\nx = 1",
        "// no comment here\nx = 1",
        "/* no comment here */\nx = 1",
        "''\nx = 1",
    ],
    "java": [
        "        return value;",
        "\n        return value;\n    }\n",
        "    // why\n    int x = 1;",
        "    //why\n\n    // more\n    int x = 1;",
        "    int x = 1; // why",
        "    /*\n     * Text.\n     */\n    int x = 1;",
        "    /**\n     * Text.\n     * More. */\n    int x = 1;",
        "    /* Text. */\n    int x = 1;\n    int y = 2;",
        "    /* Text. */\n    int x = 1;\n    /* More. */\n    int y = 2;",
        "    /* Text.\n    */ int x = 1;\n    int y = 2;",
        "    /* Text. */ int x = 1;\n    int y = 2;",
        "    /*\n    // within\n    */\n    // behind\n    int x = 1;",
        "    int x = 1; /* Text.\n    More. */",
        "    // only a comment",
        "\n\n/* never ends\nint x = 1;",
        "",
        "\n\n",
        "   \n",
        "# no comment here\nint x = 1;",
        "    * no comment here\n    int x = 1;",
        '    """\n    text\n    """;\n    int x = 1;',
        "    }\n\n    @Override\n",
        "\u00a0// comment\r\n    char c = 'é';\r\n",
    ],
}


def write(name, rows):
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{name}: {len(rows)} rows, {(DATA / name).stat().st_size / 1000:.0f} kB")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", type=Path, default=Path.home() / ".cache/pie-pool/train/test.jsonl")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    rows = [measured(*pair) for pair in pairs(code_lines(given.corpus), random.Random(given.seed))]
    write("metrics.jsonl", rows)
    apart = Counter(row["edit_similarity_levenshtein"] - row["edit_similarity"] for row in rows)
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in ("edit_similarity", "edit_similarity_levenshtein")}
    print(f"  exact: {sum(row['exact_match'] for row in rows)}; means {mean}; the two differ in {len(rows) - apart[0]}, most by "
          f"{max(apart, key=abs)}; over 200 characters: {sum(len(row['prediction']) >= 200 for row in rows)}")
    write("first_line.jsonl", [{"language": language, "completion": text, "expected": first_line(language, text)}
                               for language, texts in COMPLETIONS.items() for text in texts])


if __name__ == "__main__":
    main()
