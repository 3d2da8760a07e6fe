"""Tests of `mmkgc extract` on pictures, sounds and videos."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmkgc_cli.features.loading import load_features
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph, write_graph
from tests.conftest import Outcome
from tests.extraction.media_models import tiny_ast, tiny_videomae, tiny_vit
from tests.extraction.test_files import bad_zip
from tests.extraction.test_pictures import animation, encoded, noise, png
from tests.extraction.test_sounds import tone, wav
from tests.features.small import graph_of

Run = Callable[..., Outcome]


def rows(path: Path) -> dict[str, np.ndarray]:
    """The vectors of a store by entity, without missing ones."""
    with FeatureStore(path) as store:
        return {
            name: vector
            for name, vector, is_observed in zip(
                store.ids, store.read(), store.observed, strict=True
            )
            if is_observed
        }


BAD = {
    "zero": b"",
    "words": b"no picture",
    "page": b"<html>not found</html>",
    "cut": encoded(noise(40, 40))[:900],
    "one": encoded(Image.new("RGB", (1, 1))),
    "bomb": png(90_000, 90_000),
}
GOOD = {
    "cmyk": encoded(Image.new("CMYK", (30, 30), (0, 90, 90, 0)), "JPEG"),
    "moving": animation(["red", "blue"]),
    "deep": encoded(Image.fromarray(np.full((20, 20), 40_000, np.uint16))),
    "called gif": encoded(noise(20, 20), "JPEG"),
}


def test_bad_pictures_are_skipped_with_entity_and_file(mmkgc: Run, tmp_path: Path) -> None:
    write_graph(graph_of([*BAD, *GOOD, "both", "nothing"]), tmp_path / "g")
    folder = tmp_path / "p"
    folder.mkdir()
    for name, data in {**BAD, **GOOD}.items():
        (folder / f"{name}.gif").write_bytes(data)
    (folder / "both").mkdir()
    (folder / "both" / "1.png").write_bytes(b"broken")
    (folder / "both" / "2.png").write_bytes(encoded(Image.new("RGB", (9, 9), "white")))
    words = ["extract", "image", "--graph", "g", "--input", "p", "--encoder", "colour-grid"]
    done = mmkgc(*words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == (
        "12 entities: 5 observed, 1 without an image input, 6 without a usable input"
    )
    vectors = rows(tmp_path / "g" / "features" / "image.h5")
    assert set(vectors) == {*GOOD, "both"}
    assert np.allclose(vectors["both"], 1)  # the mean of what could be read
    table = (tmp_path / "g" / "features" / "image.skipped.tsv").read_text()
    skipped_rows = {line.split("\t")[0]: line.split("\t")[1:] for line in table.splitlines()[1:]}
    assert set(skipped_rows) == {*BAD, "both"}
    for name, (origin, reason) in skipped_rows.items():
        assert origin == ("p/both/1.png" if name == "both" else f"p/{name}.gif")
        assert reason
    assert "Warning" not in done.err
    strict = mmkgc(*words, "--strict", "--overwrite")
    assert strict.code == 3
    assert strict.err.splitlines()[-1].startswith("error: p/")


def test_paths_that_lead_out_of_an_archive_are_refused(mmkgc: Run, tmp_path: Path) -> None:
    write_graph(graph_of(["Q1", "Q2"]), tmp_path / "g")
    path = bad_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Q2.png", encoded(noise(8, 8)))
    before = {p for p in tmp_path.parent.rglob("*") if p.is_file()}
    done = mmkgc("extract", "image", "--graph", "g", "--input", "a.zip", "--encoder", "colour-grid")
    assert done.code == 0, done.err
    assert "2 entities: 1 observed, 1 without a usable input" in done.out
    assert "refused: leads out of the archive" in done.out
    assert "refused: a link or a special file" in done.out
    new = {p for p in tmp_path.parent.rglob("*") if p.is_file()} - before
    assert new == {tmp_path / "g" / "features" / f for f in ("image.h5", "image.skipped.tsv")}


def test_the_pictures_of_the_built_in_graph_have_vectors_without_any_weights(
    mmkgc: Run, tmp_path: Path
) -> None:
    assert mmkgc("prepare", "elements", "--out", "g").code == 0
    stores = {}
    for source in ("image.tsv", "image"):
        done = mmkgc("extract", "image", "--graph", "g", "--encoder", "colour-grid", "--input",
                     f"g/modalities/{source}", "--out", f"{source}.h5")  # fmt: skip
        assert done.code == 0, done.err
        assert "641 entities: 103 observed" in done.out
        stores[source] = rows(tmp_path / f"{source}.h5")
    assert stores["image"].keys() == stores["image.tsv"].keys()
    for name, vector in stores["image"].items():
        assert np.array_equal(vector, stores["image.tsv"][name])


def test_a_vision_model_twice_in_any_order_of_entities_gives_the_same_bits(
    mmkgc: Run, tmp_path: Path
) -> None:
    names = [f"e{i}" for i in range(9)]
    write_graph(graph_of(names), tmp_path / "g")
    write_graph(graph_of(names[::-1]), tmp_path / "turned")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for i, name in enumerate(names):
            for j in range(1 + i % 3):
                archive.writestr(f"{name}/{j}.png", encoded(noise(20 + i, 30, 10 * i + j)))
    folder = tiny_vit(tmp_path / "vit", head=True)
    for graph in ("g", "turned"):
        done = mmkgc("extract", "image", "--graph", graph, "--input", "p.zip", "--encoder",
                     str(folder), "--batch-size", "4", "--device", "cpu")  # fmt: skip
        assert done.code == 0, done.err
        assert done.err.splitlines()[0].startswith("18 pictures through")
        assert len(done.err.splitlines()) == 2
    reference, reordered = (rows(tmp_path / g / "features" / "image.h5") for g in ("g", "turned"))
    assert len(reference) == 9
    assert all(np.array_equal(reference[name], reordered[name]) for name in names)
    metadata = json.loads(mmkgc("features", "show", "g", "--json").out)["stores"][0]
    assert metadata["pooling"] == "cls; mean over inputs"


def test_sounds_and_videos_have_vectors_with_and_without_models(mmkgc: Run, tmp_path: Path) -> None:
    write_graph(graph_of(["cat", "dog", "fish"]), tmp_path / "g")
    for modality, files in {
        "audio": {"cat/1.wav": wav(tone(700, 0.5)), "dog.wav": b"RIFF",
                  "cat/2.wav": wav(tone(900, 0.3, 44_100), 44_100)},
        "video": {"cat.gif": animation(["red", "lime"]), "dog.mp4": b"no",
                  **{f"fish/frame{i}.png": encoded(noise(20, 20, i)) for i in range(5)}},
    }.items():  # fmt: skip
        for name, data in files.items():
            path = tmp_path / modality / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    models = {"audio": tiny_ast(tmp_path / "ast"), "video": tiny_videomae(tmp_path / "mae")}
    observed = {"audio": 1, "video": 2}
    for modality, offline in (("audio", "log-mel-stats"), ("video", "colour-grid")):
        for encoder in (offline, str(models[modality])):
            done = mmkgc("extract", modality, "--graph", "g", "--input", modality,
                         "--encoder", encoder, "--overwrite")  # fmt: skip
            assert done.code == 0, done.err
            assert f"3 entities: {observed[modality]} observed" in done.out
            assert f"dog ({modality}/dog." in done.out
    loaded = load_features(tmp_path / "g" / "features" / "video.h5", load_graph(tmp_path / "g"),
                           "zero")  # fmt: skip
    assert loaded.observed.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["image"], 2, "no source of pictures; add --input FOLDER, INDEX or ARCHIVE"),
        (["image", "--input", "nothing"], 3, "nothing: cannot be read: no such file"),
        (["image", "--input", "p", "--encoder", "vgg16"], 2, "hf download timm/vgg16.tv_in1k"),
        (["image", "--input", "p", "--encoder", "colour-grid", "--weights", "w"], 2, "not use it"),
        (["image", "--input", "p", "--columns", "2"], 2, "is not an index"),
        (["image", "--input", "p", "--encoder", "./none"], 3, "none: no such folder"),
        (["image", "--input", "p"], 3, "google/vit-base-patch16-224: not in the cache"),
        (["audio", "--input", "p"], 3, "MIT/ast-finetuned-audioset-10-10-0.4593: not in the cache"),
        (["video", "--input", "p"], 3, "videomae-base-finetuned-kinetics: not in the cache"),
    ],
)  # fmt: skip
def test_an_impossible_job_is_one_line(
    words: list[str], code: int, message: str, mmkgc: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_graph(graph_of(["Q1", "Q2"]), tmp_path / "g")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "Q1.png").write_bytes(encoded(noise(9, 9)))
    done = mmkgc("extract", *words, "--graph", "g")
    assert done.code == code, done.err
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_every_flag_of_fb_flags_has_a_vector(mmkgc: Run, tmp_path: Path, real_data: Path) -> None:
    source = real_data / "FB-Flags"
    done = mmkgc("prepare", "flags", "--source", str(source), "--out", "g", "--format", "hrt",
                 "--unseen", "keep")  # fmt: skip
    assert done.code == 0, done.err
    done = mmkgc("extract", "image", "--graph", "g", "--encoder", "colour-grid", "--input",
                 str(source / "entities.tsv"))  # fmt: skip
    assert done.code == 0, done.err
    assert "257 entities: 257 observed" in done.out
