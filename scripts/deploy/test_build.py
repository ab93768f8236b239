"""The stages chef, plan and build of deploy/Dockerfile, word for word, in a clean Debian: long."""

import pathlib
import subprocess

import pytest
import stages


@pytest.fixture(scope="module")
def clean():
    """Kept under .cache, so that what was done once is there the next time."""
    folder = stages.ROOT / ".cache/deploy"
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "rust"
    if not (base / "ready").exists():
        subprocess.run(["rm", "-rf", str(base)], check=True)
        stages.rust(base)
        (base / "ready").touch()
    return folder


def stage(clean, name, after, sources=None):
    """Does a stage on top of another; returns its root."""
    base, instructions = stages.stages()[name]
    folder = clean / name
    if not (folder / "done").exists():
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(clean / after), str(folder)], check=True)
        (folder / "done").unlink(missing_ok=True)
        root = stages.Root(folder)
        root.env["PATH"] = "/usr/local/rust/bin:/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        root.work = "/" if name == "chef" else "/src"
        with (clean / f"{name}.log").open("wb") as log:
            root.build(instructions, sources or {}, log)
        (folder / "done").touch()
    return folder


def test_the_tools_of_the_build_are_there(clean):
    chef = stage(clean, "chef", "rust")
    assert (chef / "root/.cargo/bin/cargo-chef").exists() and (chef / "usr/bin/protoc").exists()


def test_the_plan_has_the_dependencies(clean):
    plan = stage(clean, "plan", "chef")
    assert "tonic" in (plan / "src/recipe.json").read_text()


def test_the_program_is_built_with_the_list_of_its_crates(clean):
    build = stage(clean, "build", "chef", {"plan": clean / "plan"})
    program = build / "src/target/release/pie"
    assert "pie 0" in subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    sections = subprocess.run(["readelf", "-S", "-W", str(program)], capture_output=True, text=True, check=True).stdout
    assert ".dep-v0" in sections and ".debug_info" not in sections
    assert pathlib.Path(program).stat().st_size < 120_000_000
