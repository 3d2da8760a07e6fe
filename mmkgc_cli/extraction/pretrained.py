"""Models of transformers from a folder or the Hugging Face hub, with a recorded revision.

Code in a model's repository is never run. safetensors are preferred to pickles, which transformers
reads in weights-only mode. HF_HUB_OFFLINE is respected.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError, MmkgcError, is_out_of_memory
from mmkgc_cli.state.parsing import parse_json

# Files of a model folder that determine vectors; pickled weights only count without safetensors.
_WEIGHTS = re.compile(r"(?:model|adapter).*\.safetensors")
_PICKLED = re.compile(r"pytorch_model.*\.bin")
_OTHERS = re.compile(r".*\.(?:json|txt|model|jinja)")
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_INSTALL = "run `pip install transformers`"
_OTHER = "choose another model with --encoder"


@dataclass(frozen=True)
class Pretrained:
    """A local model: a folder, or a name and commit in the hub cache."""

    name: str  # recorded in the store
    revision: str
    location: str  # argument of `from_pretrained`
    commit: str | None = None

    def read_json(self, file: str) -> Any:
        """Reads a JSON file of the model; None if it does not exist.

        Raises:
            DataError: the file is not valid JSON.
        """
        path = self._path(file)
        if path is None:
            return None
        return parse_json(path.read_bytes(), str(path), fix="download the model again")

    def _path(self, file: str) -> Path | None:
        if self.commit is None:
            path = Path(self.location) / file
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        # The file is not in the repository, or not in the cache while offline.
        with contextlib.suppress(EntryNotFoundError), model_errors(self.name):
            return Path(hf_hub_download(self.location, file, revision=self.commit))
        return None

    def load(self, model_class: Any, **options: Any) -> Any:
        """Calls ``model_class.from_pretrained`` for this model.

        Raises:
            DataError: the model cannot be loaded, or needs code from its repository.
        """
        with model_errors(self.name):
            return model_class.from_pretrained(
                self.location, revision=self.commit or "main", trust_remote_code=False, **options
            )

    def load_model(self, model_class: Any, unused: str = "pooler") -> Any:
        """Loads a model in evaluation mode and float32, with all weights from its files.

        Args:
            model_class: for example `transformers.AutoModel`.
            unused: weights with this string in their name may be missing.

        Raises:
            DataError: as `load`, or weights are missing, which transformers initialises at random.
        """
        model, loading_info = self.load(model_class, output_loading_info=True)
        missing_weights = [
            *loading_info["missing_keys"],
            *(key for key, *_ in loading_info.get("mismatched_keys", ())),
        ]
        missing_weights = sorted(key for key in map(str, missing_weights) if unused not in key)
        if missing_weights:
            raise DataError(
                f"{self.name}: {len(missing_weights)} of the weights that config.json requires are "
                f"missing, the first {missing_weights[0]!r}; they would be random",
                fix=f"download the model again, or {_OTHER}",
            )
        return model.float().eval()


@contextlib.contextmanager
def model_errors(name: str) -> Iterator[None]:
    """Converts errors of transformers on a model into a `DataError`."""
    try:
        yield
    except MmkgcError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or _is_missing_entry(error):
            raise
        message = str(error)
        reason = " ".join((message.strip().splitlines() or [type(error).__name__])[0].split())[:200]
        if "trust_remote_code" in message:
            reason = "it needs code from its repository, which is never run"
        raise DataError(
            f"{name}: the model cannot be loaded: {reason}", fix=f"download it again, or {_OTHER}"
        ) from error


def _is_missing_entry(error: Exception) -> bool:
    from huggingface_hub.errors import EntryNotFoundError

    return isinstance(error, EntryNotFoundError)


def load_transformers() -> Any:
    """Imports transformers and disables its log messages and progress bars.

    Raises:
        DataError: transformers is not installed.
    """
    # Otherwise a service of the hub is asked to convert models without safetensors.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        import huggingface_hub.utils
        import transformers
    except ImportError as error:
        missing = error.name or "transformers"
        raise DataError(f"this encoder needs {missing}", fix=_INSTALL) from error
    loading_info: Any = transformers.utils.logging
    loading_info.set_verbosity_error()
    loading_info.disable_progress_bar()
    hub: Any = huggingface_hub.utils
    hub.disable_progress_bars()
    hub.logging.set_verbosity_error()
    return transformers


def locate(encoder: str, registered: Iterable[str] = ()) -> Pretrained:
    """Finds a model by folder or by hub name; with HF_HUB_OFFLINE only in the hub cache.

    Args:
        encoder: folder or hub name.
        registered: names of registered encoders, for suggestions.

    Raises:
        DataError: the model does not exist or cannot be downloaded.
    """
    load_transformers()
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    if folder.exists():
        raise DataError(
            f"{encoder}: is a file, expected a model folder with config.json",
            fix="give the folder as --encoder",
        )
    if not _HUB_NAME.fullmatch(encoder) or encoder.startswith("."):
        raise DataError(f"{encoder}: no such folder", fix="check --encoder")
    return _from_hub(encoder, registered)


def _from_folder(folder: Path) -> Pretrained:
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{folder}: no config.json, so it is not a model of transformers", fix="check --encoder"
        )
    files = [path for path in folder.rglob("*") if path.is_file()]
    top = [path for path in files if path.parent == folder]
    weights = [path for path in top if _WEIGHTS.fullmatch(path.name)]
    weights = weights or [path for path in top if _PICKLED.fullmatch(path.name)]
    if not weights:
        raise DataError(
            f"{folder}: no weights (model.safetensors or pytorch_model.bin)",
            fix="copy them into this folder",
        )
    others = [path for path in files if _OTHERS.fullmatch(path.name)]
    digest = hashlib.sha256()
    for path in sorted({*weights, *others}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    # The parent folder is part of the name, since many folders are called "model".
    name = "/".join(folder.resolve().parts[-2:]).removeprefix("//")
    return Pretrained(name, f"sha256 {digest.hexdigest()}", str(folder))


def _from_hub(encoder: str, registered: Iterable[str]) -> Pretrained:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    match = difflib.get_close_matches(encoder, list(registered), n=1, cutoff=0.7)
    suggestion = f"; did you mean {match[0]!r}?" if match and match[0] != encoder else ""
    advice = (
        f"download it with `hf download {encoder}`, or give the folder of a copy as "
        f"--encoder{suggestion}"
    )
    try:
        with model_errors(encoder):
            config = Path(hf_hub_download(encoder, "config.json"))
    except LocalEntryNotFoundError:
        reason = "and HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "and the hub cannot be reached"
        raise DataError(
            f"{encoder}: not in the cache of the Hugging Face hub, {reason}", fix=advice
        ) from None
    except EntryNotFoundError:
        raise DataError(
            f"{encoder}: has no config.json, so it is not a model of transformers", fix=_OTHER
        ) from None
    except DataError as error:
        if isinstance(error.__cause__, GatedRepoError):
            raise DataError(
                f"{encoder}: the hub requires a login for this model", fix="run `hf auth login`"
            ) from None
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise DataError(
                f"{encoder}: no such folder or model of the hub",
                fix=f"check --encoder{suggestion}",
            ) from None
        raise
    commit = config.parent.name
    return Pretrained(encoder, commit, encoder, commit)
