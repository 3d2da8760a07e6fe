"""Tests of `mmkgc extract` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.registry import MODALITIES
from mmkgc_cli.features.loading import load_features
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph, write_graph
from tests.conftest import ROOT, Outcome, command, random_graph
from tests.extraction.models import tiny_bert
from tests.features.small import graph_of

Run = Callable[..., Outcome]


@pytest.fixture
def elements(mmkgc: Run, tmp_path: Path) -> Path:
    assert mmkgc("prepare", "elements", "--out", "g").code == 0
    return tmp_path / "g"


def test_three_modalities_of_the_built_in_graph_without_any_weights(
    mmkgc: Run, elements: Path
) -> None:
    text = ["text", "--input", "g/modalities/text.tsv", "--encoder", "hashed-ngrams"]
    numeric = ["numeric", "--input", "g/modalities/numeric.tsv"]
    for words, observed in ((text, 268), (numeric, 252),
                            (["structure", "--encoder", "hashed-ngrams"], 641)):  # fmt: skip
        done = mmkgc("extract", *words, "--graph", "g")
        assert done.code == 0, done.err
        assert f"641 entities: {observed} observed" in done.out
        assert f"g/features/{words[0]}.h5 written" in done.err
        loaded = load_features(
            elements / "features" / f"{words[0]}.h5", load_graph(elements), "mean"
        )
        assert int(loaded.observed.sum()) == observed
    shown = json.loads(mmkgc("features", "show", "g", "--json").out)["stores"]
    metadata = {store["modality"]: store for store in shown}
    assert metadata["text"]["preprocess"].startswith("columns text; ")
    assert metadata["structure"]["train_id"] == load_graph(elements).train_id
    assert metadata["numeric"]["width"] == 16
    again = mmkgc("extract", *text, "--graph", "g")
    assert (again.code, "exists with the same settings" in again.err) == (0, True)


def test_structure_of_another_split_is_refused_in_training(mmkgc: Run, tmp_path: Path) -> None:
    graph = random_graph(40, 3, 200, 1)
    write_graph(graph, tmp_path / "g")
    mmkgc("extract", "structure", "--graph", "g", "--encoder", "hashed-ngrams")
    reference = random_graph(40, 3, 200, 2)
    write_graph(reference, tmp_path / "o")
    done = mmkgc("train", "ikrl", "--graph", "o", "--features", "image=g/features/structure.h5",
                 "--fill", "zero")  # fmt: skip
    assert done.code == 3

    with pytest.raises(DataError, match="made from another train split"):
        load_features(tmp_path / "g" / "features" / "structure.h5", reference, "zero")


def test_skipped_inputs_are_listed_by_entity_and_line(mmkgc: Run, tmp_path: Path) -> None:
    write_graph(graph_of([f"e{i}" for i in range(12)]), tmp_path / "g")
    lines = [f"e{i}\t\n" for i in range(7)] + ["e7\tgood\n", "e8\tbad \x00\n", "x\ty\n"]
    (tmp_path / "t.tsv").write_text("".join(lines))
    words = ["extract", "text", "--graph", "g", "--input", "t.tsv", "--encoder", "hashed-ngrams"]
    done = mmkgc(*words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == (
        "12 entities: 1 observed, 3 without a text input, 8 without a usable input"
    )
    assert "1 id not in the graph, such as 'x', skipped" in done.out
    assert "8 inputs skipped; g/features/text.skipped.tsv lists them, the first:" in done.out
    assert "  e0 (t.tsv:1): the text is empty" in done.out
    assert "e8" not in done.out
    table = (tmp_path / "g" / "features" / "text.skipped.tsv").read_text().splitlines()
    assert table[-1] == "e8\tt.tsv:9\tcontains a NUL at byte 8, so it is not a text"
    done = mmkgc(*words, "--overwrite", "--json")
    assert json.loads(done.out)["skipped"][0] == {
        "entity": "e0", "origin": "t.tsv:1", "reason": "the text is empty"
    }  # fmt: skip
    done = mmkgc(*words, "--strict", "--out", "s.h5")
    assert (done.code, done.out) == (3, "")
    assert "error: t.tsv:1: the text is empty (entity 'e0') (--strict)" in done.err
    assert not (tmp_path / "s.h5").exists()


def test_encoders_are_listed_and_documented(mmkgc: Run) -> None:
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    for name, modality_entry in MODALITIES.items():
        assert f"| `{name}` |" in page
        shown = mmkgc("extract", name, "--list").out
        encoders = json.loads(mmkgc("extract", name, "--list", "--json").out)
        assert list(encoders) == [e.name for e in modality_entry.encoders]
        for encoder in modality_entry.encoders:
            assert f"`{encoder.name}`" in page
            assert f"{encoder.name} " in shown
            assert encoder.help + (" (default)" if encoder.default else "") in shown


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["text", "--input", "t.tsv"], 2, "no graph is given; add --graph DIR"),
        (["sound", "--graph", "g"], 2, "modality 'sound' is unknown"),
        (["text", "--graph", "g"], 2, "no source of texts; add --input FILE or FOLDER"),
        (["text", "--graph", "g", "--input", "no.tsv"], 3, "no.tsv: no such file"),
        (["text", "--graph", "no", "--input", "t.tsv"], 3, "make it with `mmkgc prepare`"),
        (["text", "--graph", "g", "--input", "t.tsv"], 3, "no text for any entity of 'ring'"),
        (["text", "--graph", "g", "--input", "t.tsv", "--encoder", "./x"], 3, "no such folder"),
        (["numeric", "--graph", "g", "--input", "t.tsv"], 3, "write entity, attribute and"),
        (["numeric", "--graph", "g", "--columns", "a"], 2, "--columns: numeric does not use it"),
        (["text", "--graph", "g", "--limit", "0"], 2, "limit"),
    ],
)
def test_an_impossible_job_is_one_line(
    mmkgc: Run, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    write_graph(graph_of(["a", "b"]), tmp_path / "g")
    (tmp_path / "t.tsv").write_text("x\ty\n")
    if "./x" in words:
        (tmp_path / "t.tsv").write_text("a\ty\n")
    done = mmkgc("extract", *words, "--device", "cpu" if "text" in words else "auto")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not list((tmp_path / "g").glob("features/*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_command_killed_anywhere_resumes_to_the_same_vectors(tmp_path: Path) -> None:
    names = [f"e{i}" for i in range(3000)]
    write_graph(graph_of(names), tmp_path / "g")
    rows = [f"{name}\t{'a b ' * (i % 8)} gas {i}\n" for i, name in enumerate(names)]
    (tmp_path / "t.tsv").write_text("".join(rows))
    tiny_bert(tmp_path / "bert")
    part = tmp_path / "s.h5.part"

    def start(out: str) -> subprocess.Popen[str]:
        words = ["extract", "text", "--graph", "g", "--input", "t.tsv", "--encoder", "bert"]
        words += ["--device", "cpu", "--batch-size", "4", "--out", out]
        # One thread: several would wait for one another where others want the cores as well.
        return subprocess.Popen(
            command(*words), cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    assert "3,000 observed" in start("whole.h5").communicate()[0]
    codes = []
    kills = ((signal.SIGKILL, 200), (signal.SIGINT, 900), (signal.SIGTERM, 1700))
    for number, rows_before in kills:
        process = start("s.h5")
        while process.poll() is None and (
            not part.exists() or part.stat().st_size < 70 * rows_before
        ):
            time.sleep(0.005)
        process.send_signal(number)
        _, stderr = process.communicate()
        codes.append(process.returncode)
        assert "Traceback" not in stderr
        assert number == signal.SIGKILL or "run the same command to resume" in stderr
    assert codes == [-signal.SIGKILL, 130, 143]
    stderr, _ = start("s.h5").communicate()
    assert "from the interrupted run" in stderr
    with (
        FeatureStore(tmp_path / "s.h5") as resumed,
        FeatureStore(tmp_path / "whole.h5") as reference,
    ):
        assert resumed.ids == reference.ids == names
        assert np.array_equal(resumed.read(), reference.read())
        assert resumed.observed.all()
        assert resumed.metadata == reference.metadata
