"""The client's code, generated from proto/ at test time: nothing that could grow stale is kept."""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]


def generate() -> None:
    """Generates `pie.v1.pie_pb2` and its gRPC stub, and makes them importable for this process."""
    proto = ROOT / "proto"
    folder = tempfile.TemporaryDirectory(prefix="pie-stubs-")
    builtin = str(resources.files("grpc_tools") / "_proto")
    options = [f"--proto_path={proto}", f"--proto_path={builtin}"]
    outputs = [f"--python_out={folder.name}", f"--grpc_python_out={folder.name}"]
    files = [str(path.relative_to(proto)) for path in sorted(proto.glob("pie/v1/*.proto"))]
    assert files, f"no .proto files under {proto}/pie/v1"
    status = protoc.main(["protoc", *options, *outputs, *files])
    assert status == 0, f"protoc refuses {files} (status {status})"
    sys.path.insert(0, folder.name)
    # Kept until the process ends.
    generate.folder = folder
