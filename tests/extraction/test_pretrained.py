from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.pretrained import locate
from mmkgc_cli.extraction.text_encoder import TextEncoder
from mmkgc_cli.kg.storage import write_graph
from tests.conftest import Outcome
from tests.extraction.models import WIDTH, tiny_bert
from tests.features.small import graph_of


def load(folder: Path) -> TextEncoder:
    return TextEncoder(str(folder), EncoderOptions(device="cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "org" / "model")


def test_the_revision_of_a_folder_depends_on_files_that_determine_vectors(
    folder: Path, tmp_path: Path
) -> None:
    reference = locate(str(folder))
    assert reference.name == "org/model"
    assert reference.revision.startswith("sha256 ")
    (folder / "README.md").write_text("other words")
    assert locate(str(folder)) == reference
    other = tiny_bert(tmp_path / "moved" / "model")
    assert locate(str(other)).revision == reference.revision
    tiny_bert(other, seed=1)
    assert locate(str(other)).revision != reference.revision
    (folder / "tokenizer_config.json").write_text("{}")
    assert locate(str(folder)).revision != reference.revision


def test_safetensors_are_preferred_to_pickles(folder: Path) -> None:
    revision = locate(str(folder)).revision
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody reads")
    assert locate(str(folder)).revision == revision
    assert load(folder).width == WIDTH


def test_a_folder_without_a_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere/at/all: no such folder"):
        locate("nowhere/at/all")
    with pytest.raises(DataError, match="no config.json, so it is not a model"):
        locate(str(tmp_path))
    with pytest.raises(DataError, match="is a file, expected a model folder"):
        locate(str(folder / "config.json"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="org/model: the model cannot be loaded: "):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model: no weights \(model.safetensors"):
        locate(str(folder))


def test_missing_weights_are_an_error(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    without = {k: v for k, v in tensors.items() if "pooler" not in k}
    save_file(without, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).width == WIDTH  # nothing here looks at the pooler
    incomplete = {k: v for k, v in without.items() if "layer.1.attention" not in k}
    save_file(incomplete, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="10 of the weights that .* they would be random"):
        load(folder)


def test_code_of_a_model_repository_is_never_run(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModel"), "code.X")
    settings["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="needs code from its repository"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match=r"needs transformers; run `pip install transformers`"):
        locate("bert-base-uncased")


def test_a_model_of_the_hub_comes_from_its_cache_and_a_missing_one_says_how_to_get_it(
    mmkgc: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    # Which it reads from HF_HUB_CACHE and HF_HUB_OFFLINE when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--org--tiny"
    tiny_bert(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    write_graph(graph_of(["a", "b"]), tmp_path / "g")
    (tmp_path / "t.tsv").write_text("a\tmetal\n")
    words = ["extract", "text", "--graph", "g", "--input", "t.tsv", "--device", "cpu", "--json"]
    done = mmkgc(*words, "--encoder", "org/tiny")
    assert done.code == 0, done.err
    metadata = json.loads(done.out)["about"]
    assert (metadata["encoder"], metadata["revision"]) == ("org/tiny", commit)
    assert done.err == "1 text through org/tiny\n"
    done = mmkgc(*words, "--encoder", "org/tini", "--out", "t.h5")
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error: org/tini: not in the cache of the Hugging Face hub, and HF_HUB_OFFLINE is set; "
        "download it with `hf download org/tini`, or give the folder of a copy as --encoder\n"
    )
    done = mmkgc(*words, "--encoder", "hashed-ngram", "--out", "t.h5")
    assert "did you mean 'hashed-ngrams'?" in done.err
