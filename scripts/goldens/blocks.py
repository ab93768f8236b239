#!/usr/bin/env python3
"""Writes blocks of each GGUF storage and the numbers that ggml's own Python reference makes of them.

    pip install gguf numpy
    python3 scripts/goldens/blocks.py > crates/pie-gguf/tests/blocks.json
"""

import json
import sys

import gguf
import numpy

TYPES = gguf.GGMLQuantizationType
# Where a block's numbers of sixteen bits are: any bytes would do elsewhere, but not every sixteen bits are a number.
SCALES = {
    TYPES.Q4_0: [0],
    TYPES.Q4_1: [0, 2],
    TYPES.Q5_0: [0],
    TYPES.Q5_1: [0, 2],
    TYPES.Q8_0: [0],
    TYPES.Q4_K: [0, 2],
    TYPES.Q5_K: [0, 2],
    TYPES.Q6_K: [208],
}


def case(kind: TYPES, random: numpy.random.Generator) -> dict[str, str | int]:
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = 512 // numbers
    data = random.integers(0, 256, (blocks, size), dtype=numpy.uint8)
    for at in SCALES[kind]:
        scales = random.normal(0, 0.02, blocks).astype(numpy.float16)
        data[:, at : at + 2] = scales.view(numpy.uint8).reshape(blocks, 2)
    widened = gguf.quants.dequantize(data.reshape(1, -1), kind).astype("<f4")
    return {"kind": int(kind), "name": kind.name, "row": data.tobytes().hex(), "numbers": widened.tobytes().hex()}


random = numpy.random.default_rng(7)
json.dump([case(kind, random) for kind in SCALES], sys.stdout, indent=1)
print()
