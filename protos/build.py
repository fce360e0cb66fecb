"""Build everything that is derived from the contracts, into the git-ignored folder ``gen/``.

* ``gen/marquee/<name>/v1/*_pb2*.py`` (and the annotations of protovalidate): Python modules with type stubs. A package
  gathers its modules, so that ``from marquee.booking import v1 as booking_v1`` finds every message, stub and servicer.
* ``gen/contracts.binpb``: one descriptor set with imports and comments, which Envoy's transcoder, the gateway, buf and
  the browser app read.

Run by ``make``; does nothing when no contract changed.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from google import protobuf
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent
OUT = ROOT / "gen"
GRPC_INCLUDES = Path(protoc.__file__).parent / "_proto"
SITE_PACKAGES = Path(protobuf.__file__).parents[2]


def validate_descriptors() -> FileDescriptorSet:
    """protovalidate's own annotations, which its wheel carries in no other form than a descriptor."""
    from protovalidate._gen.buf.validate import validate_pb

    file = FileDescriptorProto.FromString(validate_pb.FieldRules.desc().file.proto.to_binary())
    imports = FileDescriptorSet()
    for name in file.dependency:
        module = __import__(name.removesuffix(".proto").replace("/", ".") + "_pb2", fromlist=["DESCRIPTOR"])
        module.DESCRIPTOR.CopyToProto(imports.file.add())
    imports.file.append(file)
    return imports


def run(*arguments: str) -> None:
    """Run protoc in this process; it prints what is wrong itself."""
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{SITE_PACKAGES}", f"-I{GRPC_INCLUDES}", *arguments]) != 0:
        sys.exit("the contracts do not compile (see above)")


def fingerprint(sources: list[Path]) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in sources:
        digest.update(source.as_posix().encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def gather(package: Path) -> None:
    """Write the ``__init__.py`` of one contract package."""
    modules = sorted(path.stem for path in package.glob("*_pb2*.py"))
    lines = [f"from .{module} import *  # noqa: F403" for module in modules]
    (package / "__init__.py").write_text("\n".join(lines) + "\n")


def swap(new: Path) -> None:
    """Put ``new`` where the old one was; whoever imports meanwhile finds one or the other."""
    new.chmod(0o755)
    old = new.with_name(f"{new.name}.old")
    if OUT.exists():
        OUT.rename(old)
    new.rename(OUT)
    shutil.rmtree(old, ignore_errors=True)


def build() -> None:
    sources = sorted(PROTOS.rglob("*.proto"))
    (ROOT / "build").mkdir(exist_ok=True)
    stamp = ".fingerprint"
    current = fingerprint(sources)
    if (OUT / stamp).exists() and (OUT / stamp).read_text() == current:
        return
    new = Path(tempfile.mkdtemp(prefix="gen.", dir=ROOT / "build"))
    annotations = new / "validate.binpb"
    annotations.write_bytes(validate_descriptors().SerializeToString())
    names = [source.relative_to(PROTOS).as_posix() for source in sources]
    services = [name for name in names if "\nservice " in (PROTOS / name).read_text()]

    run(
        f"--descriptor_set_in={annotations}",
        f"--python_out={new}",
        f"--pyi_out={new}",
        "buf/validate/validate.proto",
    )
    # protoc reads from files or from a set, not from both, so everything goes through one set.
    run(
        f"--descriptor_set_in={annotations}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={new / 'contracts.binpb'}",
        *names,
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    )
    run(f"--descriptor_set_in={new / 'contracts.binpb'}", f"--python_out={new}", f"--mypy_out={new}", *names)
    run(
        f"--descriptor_set_in={new / 'contracts.binpb'}",
        f"--grpc_python_out={new}",
        f"--mypy_grpc_out={new}",
        *services,
    )
    for package in sorted(new.glob("marquee/*/v1")):
        gather(package)
    (new / stamp).write_text(current)
    swap(new)


if __name__ == "__main__":
    build()
