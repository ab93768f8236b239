"""`--kv-dtype bf16`: KV rows of a CPU in half the memory."""

import pytest
from client import Client, at_bytes, connect
from pool import serving
from stubs import ROOT
from test_shell import pie

MODEL = ["--model", str(ROOT / "models/pie-coder"), "--kv-memory", "16MiB"]
TEXT = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return area("


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_in_bf16_hold_twice_the_tokens(cache, ranks):
    """Greedy text is the same as with rows in f32 where the model is sure, behind an edit too."""
    told = {}
    for kind in ["f32", "bf16"]:
        with serving(cache, *MODEL, "--kv-dtype", kind, "--repair", "with-edits", world_size=ranks) as pool:
            client = Client(connect(pool.address))
            about = client.describe().groups[0]
            session = client.open(TEXT).session
            texts = [client.complete(session, max_tokens=6).text]
            client.edit(session, None, at_bytes(0, 0, "# Sizes of boxes.\n"))
            texts.append(client.complete(session, max_tokens=6).text)
            told[kind] = (about.slots_total, about.ranks[0].kv_bytes, about.ranks[0].device, texts)
    (wide, wide_bytes, wide_device, wide_texts), (narrow, narrow_bytes, narrow_device, narrow_texts) = told["f32"], told["bf16"]
    assert narrow in (2 * wide, 2 * wide + 1) and 0.99 < narrow_bytes / wide_bytes < 1.01
    assert (wide_device, narrow_device) == ("cpu", "cpu, KV rows in bf16")
    assert narrow_texts == wide_texts and all(wide_texts), told


def test_an_unknown_type_is_refused_with_those_that_there_are(cache):
    done = pie(cache, "pool", "--kv-dtype", "int8")
    assert done.returncode == 2 and "bf16" in done.stderr and "f32" in done.stderr, done.stderr
