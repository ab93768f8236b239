"""Makes the corpus that the small code model learns from: `train.jsonl`, `validation.jsonl` and `test.jsonl`.

Downloads the packages that `packages.csv` lists (name, version, licence, split) with their registries' own clients:
`pip download` (wheels: they carry the sources), `cargo vendor` and Maven's `dependency:copy-dependencies`, each with
whatever it is configured to use. One line of a JSONL file is one source file: language, package, path, text.

* The split is by package, so that no test file has a sibling in the training set.
* A file is dropped if more than half of its runs of four lines stood in files before it. Test files come first, then
  validation, so what is near them leaves the training set.
* Dropped too: tests, fixtures, generated, huge and minified files. A licence header is cut off: it is in `packages.csv`.

    python3 scripts/train/corpus.py [--cache FOLDER]
"""

import argparse
import csv
import hashlib
import json
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache/pie-pool/train"
SPLITS = ["test", "validation", "train"]
SUFFIX = {"python": ".py", "rust": ".rs", "java": ".java"}
# Folders and files that are no typical code.
SKIPPED_FOLDERS = {"test", "tests", "testing", "testdata", "fixtures", "snapshots", "vendor", "_vendor", "migrations", "locale",
                   "locales", "generated", "target", "external", "_generated"}
SKIPPED_FILES = re.compile(r"(^|/)(test_[^/]*|[^/]*_test|conftest|tests|package-info|module-info|_?version)\.[a-z]+$")
GENERATED = re.compile(r"@generated|auto-?generated|do not edit|automatically generated|code generator", re.IGNORECASE)
LICENCE = re.compile(r"copyright|licen[sc]e|spdx", re.IGNORECASE)
HEADER = re.compile(r"\s*(/\*.*?\*/|((//|#)[^\n]*(\n|$))+)\s*", re.DOTALL)
BYTES_PER_FILE = range(200, 120_000)
# No package sets the tone: at most this much of one, files chosen by chance.
BYTES_PER_PACKAGE = 1_300_000
SHINGLE = 4


def run(command, folder):
    """A registry's client, quiet unless it fails."""
    print("  " + " ".join(map(str, command[:4])) + " …", flush=True)
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed in {folder}:\n{done.stdout[-3000:]}")


def download_python(packages, folder):
    pins = [f"{package['name']}=={package['version']}" for package in packages]
    run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", ".", *pins], folder)


def download_rust(packages, folder):
    """Vendors a crate without code that depends on all of them; what they need comes along and is not read."""
    lines = ['[package]\nname = "corpus"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]']
    lines += [f'{p["name"]} = {{ version = "={p["version"]}", default-features = false }}' for p in packages]
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src/lib.rs").touch()
    (folder / "Cargo.toml").write_text("\n".join(lines) + "\n")
    run(["cargo", "vendor", "vendor"], folder)


def download_java(packages, folder):
    """Copies the source jars that a project without code depends on."""
    dependencies = ""
    for package in packages:
        group, artifact = package["name"].split(":")
        dependencies += (f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
                         f"<version>{package['version']}</version><classifier>sources</classifier></dependency>\n")
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>corpus</groupId><artifactId>corpus</artifactId>"
        f"<version>0</version><packaging>pom</packaging><dependencies>\n{dependencies}</dependencies></project>\n")
    run(["mvn", "-B", "-ntp", "dependency:copy-dependencies", "-DexcludeTransitive=true", "-DoutputDirectory=jars"], folder)


DOWNLOAD = {"python": download_python, "rust": download_rust, "java": download_java}


def archived(archive, suffix):
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if name.endswith(suffix):
                yield name, files.read(name)


def package_files(package, folder):
    """The package's source files: path and bytes, in the order of the paths."""
    name, version, suffix = package["name"], package["version"], SUFFIX[package["language"]]
    if package["language"] == "rust":
        # Two versions of one crate: the folder of the older one carries its version.
        own = [path for path in (folder / "vendor").glob(f"{name}*") if path.name == name or path.name.startswith(f"{name}-{version}")]
        crate = max(own, key=lambda path: len(path.name))
        for path in sorted(crate.rglob(f"*{suffix}")):
            yield str(path.relative_to(crate)), path.read_bytes()
    elif package["language"] == "java":
        yield from archived(folder / f"jars/{name.split(':')[1]}-{version}-sources.jar", suffix)
    else:
        stem = re.sub(r"[-_.]+", "_", name).lower()
        wheel = next(path for path in sorted(folder.glob("*.whl")) if path.name.lower().startswith(f"{stem}-{version}-"))
        yield from archived(wheel, suffix)


def clean(path, data):
    """The file's text, or nothing if it is not worth learning from."""
    if len(data) not in BYTES_PER_FILE or SKIPPED_FILES.search(path) or SKIPPED_FOLDERS & set(path.lower().split("/")[:-1]):
        return None
    try:
        text = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None
    header = HEADER.match(text)
    if header and LICENCE.search(header.group()):
        text = text[header.end():]
    lines = text.split("\n")
    letters = sum(character.isalpha() or character.isspace() for character in text)
    unusual = max(map(len, lines)) > 400 or len(text) > 90 * len(lines) or letters < 0.55 * len(text) or not text.isprintable() and "\0" in text
    if unusual or len(text) < BYTES_PER_FILE.start or GENERATED.search(text[:1500]):
        return None
    return text.strip("\n") + "\n"


def shingles(text):
    """Hashes of each run of lines, spaces aside."""
    lines = [line for line in ("".join(line.split()) for line in text.split("\n")) if len(line) > 3]
    runs = range(max(1, len(lines) - SHINGLE + 1))
    return {hashlib.blake2b("\n".join(lines[at:at + SHINGLE]).encode(), digest_size=8).digest() for at in runs}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cache", type=Path, default=CACHE)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    packages = list(csv.DictReader((HERE / "packages.csv").open()))
    for language, download in DOWNLOAD.items():
        folder = given.cache / "packages" / language
        folder.mkdir(parents=True, exist_ok=True)
        own = [package for package in packages if package["language"] == language]
        listed = json.dumps(own)
        done = folder / "downloaded.json"
        if not done.exists() or done.read_text() != listed:
            print(f"{language}: {len(own)} packages", flush=True)
            download(own, folder)
            done.write_text(listed)
    seen = set()
    for split in SPLITS:
        kept, dropped, sizes = 0, 0, dict.fromkeys(SUFFIX, 0)
        with (given.cache / f"{split}.jsonl.new").open("w", encoding="utf-8") as out:
            for package in (package for package in packages if package["split"] == split):
                language, name = package["language"], package["name"]
                texts = [(path, clean(path, data)) for path, data in package_files(package, given.cache / "packages" / language)]
                texts = [(path, text) for path, text in texts if text]
                random.Random(f"{given.seed} {name}").shuffle(texts)
                size, chosen = 0, []
                for path, text in texts:
                    runs = shingles(text)
                    if size > BYTES_PER_PACKAGE or 2 * len(runs & seen) > len(runs):
                        dropped += 1
                        continue
                    seen |= runs
                    size += len(text.encode())
                    chosen.append((path, text))
                for path, text in sorted(chosen):
                    out.write(json.dumps({"language": language, "package": name, "path": path, "text": text}, ensure_ascii=False) + "\n")
                kept += len(chosen)
                sizes[language] += size
        (given.cache / f"{split}.jsonl.new").rename(given.cache / f"{split}.jsonl")
        shown = ", ".join(f"{language} {size / 1e6:.1f} MB" for language, size in sizes.items())
        print(f"{split}: {kept} files ({dropped} near-duplicates or over the package's share), {shown}", flush=True)


if __name__ == "__main__":
    main()
