"""The commands `prepare`, `audit` and `datasets`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.kg.datasets import registry
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph, write_graph
from tests.conftest import Outcome, command
from tests.kg.server import serving

Run = Callable[..., Outcome]


@pytest.fixture
def leaky(graph: Graph, tmp_path: Path) -> Path:
    valid = np.concatenate([graph.valid, graph.train[:3]])
    write_graph(dataclasses.replace(graph, name="db15k", valid=valid), tmp_path / "leaky")
    return tmp_path / "leaky"


def test_prepare_prints_and_stores_the_audit(mmkgc: Run, openke: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "s", "--source", openke, "--format", "openke", "--out", "g"]
    done = mmkgc(*arguments)
    assert "audit: clean" in done.out
    assert "copying train scores" in done.out
    stored = json.loads((tmp_path / "g" / "audit.json").read_text())
    assert json.loads(mmkgc(*arguments, "--json").out)["audit"] == stored
    assert json.loads(mmkgc("audit", "g", "--json").out) == stored


def test_audit_shows_the_problems_and_suggests_the_clean_variant(mmkgc: Run, leaky: Path) -> None:
    done = mmkgc("audit", leaky, "--relations")
    assert done.code == 0, done.err
    assert "audit: NOT clean; db15k-clean is the clean variant" in done.out
    assert "3 valid rows are also in train" in done.out
    assert "relation 4" in done.out
    assert not json.loads(mmkgc("audit", leaky, "--json").out)["clean"]


def test_training_on_a_contaminated_graph_warns_and_results_record_it(
    mmkgc: Run, leaky: Path
) -> None:
    done = mmkgc("train", "frequency", "--graph", leaky, "--run", "r")
    assert "warning: db15k is not clean: 3 valid rows are also in train; results will" in done.err
    assert "the clean variant is db15k-clean" in done.err
    selection = json.loads(mmkgc("eval", "r", "--json").out)["protocol"]["selection"]
    assert (selection["clean"], selection["valid_in_train"]) == (False, 3)


def test_names_are_printed_without_markup(mmkgc: Run, tmp_path: Path) -> None:
    rows = "".join(f"urn:cat:{i % 6}\tr:dog:x\t[b]{i % 7}\n" for i in range(42))
    (tmp_path / "t.tsv").write_text(rows)
    done = mmkgc("prepare", "m", "--source", "t.tsv", "--format", "hrt", "--split", ".8,.1,.1")
    assert done.code == 0, done.err
    assert "urn:cat:" in done.out
    assert "r:dog:x" in done.out
    assert "| [b]" in done.out


def test_json_output_is_valid_for_any_encoding_of_the_stream(tmp_path: Path) -> None:
    rows = "".join(f"é{i % 6}\t😀\té{i % 7}\n" for i in range(42))
    (tmp_path / "t.tsv").write_text(rows, encoding="utf-8")
    arguments = ["prepare", "m", "--source", "t.tsv", "--format", "hrt", "--split", ".8,.1,.1"]
    done = subprocess.run(
        command(*arguments, "--json"), cwd=tmp_path, capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert json.loads(done.stdout)["audit"]["relations"][0]["relation"] == "😀"


def test_a_folder_with_a_name_that_is_not_text_can_be_read(mmkgc: Run, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/nb\xff")
    Path(folder).mkdir()
    for split in ("train", "valid", "test"):
        (Path(folder) / f"{split}.txt").write_text(f"a\tr\tb{split}\nb{split}\tr\ta\n")
    done = mmkgc("prepare", "m", "--source", folder, "--format", "hrt", "--unseen", "keep")
    assert done.code == 0, done.err


@pytest.mark.parametrize("source", ["http://[::1/a.tsv", "ftp://x.org/a.tsv", "https://x.org/"])
def test_an_invalid_url_is_one_line(mmkgc: Run, source: str) -> None:
    done = mmkgc("prepare", "m", "--source", source, "--format", "hrt")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


def test_audit_without_a_graph_is_one_line(mmkgc: Run) -> None:
    done = mmkgc("audit", "nowhere")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: nowhere/graph.h5: no such file; make it with `mmkgc prepare`"
    ]


def test_datasets_lists_and_shows_the_registered_graphs(mmkgc: Run) -> None:
    listed = mmkgc("datasets").out
    assert all(name in listed for name in registry())
    assert set(json.loads(mmkgc("datasets", "--json").out)) == {"elements", *registry()}
    shown = mmkgc("datasets", "tiva-resplit").out
    assert "tiva by recipe resplit" in shown
    assert "@inproceedings{wang2023tiva," in shown
    entry = json.loads(mmkgc("datasets", "mkg-w", "--json").out)
    assert entry["train"] == 34196
    assert not entry["cached"]
    assert mmkgc("datasets", "mkg-w", "--bibtex").out.startswith("@inproceedings{xu2022relation,")
    assert "built into mmkgc" in mmkgc("datasets", "elements").out
    assert json.loads(mmkgc("datasets", "elements", "--json").out)["licence"] == "MIT"


def test_the_error_for_an_unknown_dataset_suggests_the_nearest(mmkgc: Run) -> None:
    done = mmkgc("datasets", "db15")
    assert done.code == 2
    assert "did you mean 'db15k'?" in done.err
    assert mmkgc("datasets", "--bibtex").code == 2


@pytest.mark.parametrize("flags", [["--offline"], []])
def test_a_missing_file_offline_is_one_line(
    mmkgc: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flags:
        monkeypatch.setenv("MMKGC_OFFLINE", "1")
    done = mmkgc("prepare", "mkg-y", *flags)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "entity2id.txt: no such file, and downloads are off" in done.err


def test_a_graph_from_an_archive_at_a_url_with_labels(
    mmkgc: Run, openke: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "graph.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in openke.iterdir():
            file.write(path, f"graph/{path.name}")
    (tmp_path / "labels.tsv").write_text("Paris\tparis (city)\nnear\tclose to\n")
    with serving() as server:
        server.files["/graph.zip"] = archive.read_bytes()
        done = mmkgc(
            "prepare", "mine", "--source", server.url("/graph.zip"), "--format", "openke",
            "--labels", "labels.tsv", "--unseen", "keep",
        )  # fmt: skip
    assert done.code == 0, done.err
    assert "downloading graph.zip" in done.err
    assert "paris (city) | capital of | France" in done.out
    assert "labels for 1 of 4 entities and 1 of 2 relations" in done.out
    assert "downloaded without a checksum; its SHA-256 is" in done.out
    graph = load_graph(tmp_path / "graphs" / "mine")
    assert graph.entity_labels is not None
    assert len(graph.provenance.notes) == 2


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        (404, 1, "404 Not Found"),
        (("bytes", b"not a zip"), 3, "graph.zip: damaged, truncated or not an archive"),
    ],
)
def test_a_failed_or_invalid_download_is_one_line(
    mmkgc: Run, tmp_path: Path, trouble: object, code: int, message: str
) -> None:
    with serving() as server:
        server.plan["/graph.zip"] = [trouble] * 9
        address = server.url("/graph.zip")
        done = mmkgc("prepare", "mine", "--source", address, "--format", "openke")
    assert done.code == code
    assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "graphs").exists()


@pytest.mark.parametrize(
    ("flags", "environment", "code", "message"),
    [
        (["--max-bytes", "50"], {}, 1, "larger than the limit of 50 bytes (--max-bytes)"),
        ([], {"MMKGC_MAX_BYTES": "50"}, 1, "larger than the limit of 50 bytes (--max-bytes)"),
        (["--max-bytes", "5000"], {}, 3, "unpacks to more than the limit of 5,000 bytes"),
        (["--max-seconds", "0.001"], {}, 1, "in 0.001 s"),
        ([], {"MMKGC_MAX_SECONDS": "0.001"}, 1, "in 0.001 s"),
        (["--max-bytes", "0"], {}, 2, "--max-bytes"),
        (["--max-seconds", "nan"], {}, 2, "--max-seconds"),
    ],
)
def test_the_limits_of_downloads_are_flags_and_variables(
    mmkgc: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    environment: dict[str, str],
    code: int,
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    archive = tmp_path / "t.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("t.tsv", "a\tr\tb\n" * 1000)
    with serving() as server:
        server.files["/t.zip"] = archive.read_bytes()
        server.plan["/t.zip"] = [("hang", 0.2)] if "0.001 s" in message else []
        address = server.url("/t.zip")
        done = mmkgc("prepare", "mine", "--source", address, "--format", "hrt", *flags)
    assert done.code == code, done.err
    assert message in done.err
    assert not (tmp_path / "graphs").exists()


def test_an_interrupted_download_is_resumed_later(tmp_path: Path) -> None:
    rows = "".join(f"e{i % 50}\tr{i % 3}\te{(7 * i) % 50}\n" for i in range(4000)).encode()
    with serving() as server:
        server.files["/t.tsv"] = rows
        server.plan["/t.tsv"] = [("drip", 0.001)]
        home = tmp_path / "home"
        arguments = ["prepare", "mine", "--source", server.url("/t.tsv"), "--format", "hrt",
                     "--split", "0.8,0.1,0.1"]  # fmt: skip
        environment = {**os.environ, "MMKGC_HOME": str(home)}
        process = subprocess.Popen(
            command(*arguments), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            parts = list(home.rglob(".t.tsv.part"))
            if parts and parts[0].stat().st_size > 500:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "error: interrupted; run the same command again"
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert server.requests[-1][1] is not None  # the request has a range
    assert [p.name for p in home.rglob("*.tsv*")] == ["t.tsv"]
