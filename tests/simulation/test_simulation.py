"""Power cuts and failing calls lose nothing; the auditor notices disks that do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

import mmkgc_cli
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.resumable_writer import ResumableWriter
from tests.kill.contents import Violation
from tests.simulation.disk import SimulatedDisk
from tests.simulation.run import Simulation, work_folder

SEEDS = 60
# A power cut leaves open files behind, as it does in reality.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with work_folder() as work:
        yield Simulation(work)


def test_power_cuts_and_errors_lose_nothing(simulation: Simulation) -> None:
    for seed in range(SEEDS):
        try:
            simulation.simulate(seed)
        except Violation as error:
            raise AssertionError(f"python -m tests.simulation.run --seed {seed}: {error}") from None


class _WithoutSync(SimulatedDisk):
    def sync(self, file: IO[bytes]) -> None:
        file.flush()


class _WithoutFolderSync(SimulatedDisk):
    def sync_folder(self, folder: Path) -> None:
        pass


class _InPlace(SimulatedDisk):
    def replace(self, source: Path, target: Path) -> None:
        content = source.read_bytes()
        with self.open(target, "wb") as file:
            file.write(content[:7])
            file.flush()
            file.write(content[7:])


@pytest.mark.parametrize("kind", [_WithoutSync, _WithoutFolderSync, _InPlace])
def test_auditor_notices_a_writer_without(
    simulation: Simulation, kind: type[SimulatedDisk]
) -> None:
    with pytest.raises(Violation):
        for seed in range(SEEDS):
            simulation.simulate(seed, kind)


def test_zeros_after_a_power_cut_are_not_a_record(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with ResumableWriter(path, Metadata("image"), 2, {}):
        pass
    part = tmp_path / "x.h5.part"
    part.write_bytes(part.read_bytes() + bytes(4096))
    with ResumableWriter(path, Metadata("image"), 2, {}) as writer:
        assert writer.ids == []


# Areas that are written through the file layer; the functions below bypass it.
_AREAS = ("runs", "state", "extraction", "features", "kg")
_CHANGES = {"unlink", "mkdir", "rmdir", "rmtree", "rename", "touch", "write_text", "write_bytes",
            "fsync", "truncate"}  # fmt: skip
_OWN = {
    "state/files.py",
    # Downloads are checked by length and checksum; archives are unpacked into temporary folders.
    "kg/downloads.py", "kg/archives.py",
    "kg/inspected.py",  # a cache; lines that are torn are ignored
}  # fmt: skip
# Methods of the file layer and of atomic.py, or of files that the layer opened.
_ALLOWED_RECEIVERS = {"files", "durable", "files_layer", "self._file"}


def test_only_the_file_layer_changes_files() -> None:
    root = Path(mmkgc_cli.__file__).parent
    paths = [path for area in _AREAS for path in (root / area).rglob("*.py")]
    found = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if name in _OWN:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            receiver, method = ast.unparse(node.func.value), node.func.attr
            bypasses = method in _CHANGES and receiver not in _ALLOWED_RECEIVERS
            mode = ast.unparse(node.args[0]) if method == "open" and node.args else ""
            if bypasses or mode.strip("'") in ("wb", "ab", "xb", "w", "a", "w+b", "r+b"):
                found.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}")
    assert found == []
