"""Models of transformers: from a folder or the Hugging Face hub, by revision, without noise.

Code that comes with a model is never run, safetensors are preferred to pickles (which transformers
reads as weights only), and HF_HUB_OFFLINE is obeyed, as transformers does it.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError, MmkgcError, is_out_of_memory

# What decides about vectors in a folder of a model; pickled weights only where there are no others.
_WEIGHTS = re.compile(r"(?:model|adapter).*\.safetensors")
_PICKLED = re.compile(r"pytorch_model.*\.bin")
_OTHERS = re.compile(r".*\.(?:json|txt|model|jinja)")
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_INSTALL = "pip install transformers"


@dataclass(frozen=True)
class Pretrained:
    """A model that is here: by folder, or by name and commit in the cache of the hub."""

    name: str  # to be recorded
    revision: str
    location: str  # for `from_pretrained`
    commit: str | None = None

    def read_json(self, file: str) -> Any:
        """A JSON file of the model; None where it has none.

        Raises:
            DataError: when it is damaged.
        """
        path = self._path(file)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON: {error}") from None

    def _path(self, file: str) -> Path | None:
        if self.commit is None:
            path = Path(self.location) / file
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        # Not in the repository, or not in the cache while offline.
        with contextlib.suppress(EntryNotFoundError), guarded(self.name):
            return Path(hf_hub_download(self.location, file, revision=self.commit))
        return None

    def load(self, kind: Any, **options: Any) -> Any:
        """``kind.from_pretrained`` of this model.

        Raises:
            DataError: when it cannot be loaded, or needs code of its own.
        """
        with guarded(self.name):
            return kind.from_pretrained(
                self.location, revision=self.commit or "main", trust_remote_code=False, **options
            )

    def load_model(self, kind: Any, unused: str = "pooler") -> Any:
        """The same for a model, in evaluation, float32, all its weights from the files.

        Args:
            kind: such as `transformers.AutoModel`.
            unused: weights with this in their name may be missing.

        Raises:
            DataError: as `load`; when weights are missing, which transformers would draw at random.
        """
        model, told = self.load(kind, output_loading_info=True)
        lacking = [*told["missing_keys"], *(key for key, *_ in told.get("mismatched_keys", ()))]
        lacking = sorted(key for key in map(str, lacking) if unused not in key)
        if lacking:
            raise DataError(
                f"{self.name}: its weights lack {len(lacking)} of those that its config.json asks "
                f"for, the first {lacking[0]!r}; they would be random"
            )
        return model.float().eval()


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turns what transformers raises over a model into one line."""
    try:
        yield
    except MmkgcError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or _is_missing_entry(error):
            raise
        said = str(error)
        reason = " ".join((said.strip().splitlines() or [type(error).__name__])[0].split())[:200]
        if "trust_remote_code" in said:
            reason = "it needs code of its own, and none but that of transformers is run"
        raise DataError(f"{name}: the model cannot be loaded: {reason}") from error


def _is_missing_entry(error: Exception) -> bool:
    from huggingface_hub.errors import EntryNotFoundError

    return isinstance(error, EntryNotFoundError)


def library() -> Any:
    """transformers, told to be silent.

    Raises:
        DataError: when it is not installed.
    """
    # A model without safetensors would otherwise be sent to a service that converts it.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        import huggingface_hub.utils
        import transformers
    except ImportError as error:
        missing = error.name or "transformers"
        raise DataError(f"this encoder needs {missing}: {_INSTALL}") from error
    told: Any = transformers.utils.logging
    told.set_verbosity_error()
    told.disable_progress_bar()
    hub: Any = huggingface_hub.utils
    hub.disable_progress_bars()
    hub.logging.set_verbosity_error()
    return transformers


def locate(encoder: str, registered: Iterable[str] = ()) -> Pretrained:
    """Finds a model by folder, or by its name in the hub, which is asked unless HF_HUB_OFFLINE.

    Args:
        encoder: folder or name.
        registered: names of encoders that may have been meant.

    Raises:
        DataError: when there is no such model, or it cannot be had.
    """
    library()
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return _local(folder)
    if folder.exists():
        raise DataError(f"{encoder}: is a file, expected the folder of a model, with config.json")
    if not _HUB_NAME.fullmatch(encoder) or encoder.startswith("."):
        raise DataError(f"{encoder}: no such folder")
    return _of_hub(encoder, registered)


def _local(folder: Path) -> Pretrained:
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json there, so it is no model of transformers")
    files = [path for path in folder.rglob("*") if path.is_file()]
    top = [path for path in files if path.parent == folder]
    weights = [path for path in top if _WEIGHTS.fullmatch(path.name)]
    weights = weights or [path for path in top if _PICKLED.fullmatch(path.name)]
    if not weights:
        raise DataError(f"{folder}: no weights there (model.safetensors or pytorch_model.bin)")
    others = [path for path in files if _OTHERS.fullmatch(path.name)]
    digest = hashlib.sha256()
    for path in sorted({*weights, *others}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    # A folder is often called "model": its parent says more.
    name = "/".join(folder.resolve().parts[-2:]).removeprefix("//")
    return Pretrained(name, f"sha256 {digest.hexdigest()}", str(folder))


def _of_hub(encoder: str, registered: Iterable[str]) -> Pretrained:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    match = difflib.get_close_matches(encoder, list(registered), n=1, cutoff=0.7)
    meant = f"; did you mean {match[0]!r}?" if match and match[0] != encoder else ""
    get = (
        f"get it with `hf download {encoder}`, where there is a network, or give the folder of a "
        f"copy as --encoder{meant}"
    )
    try:
        with guarded(encoder):
            config = Path(hf_hub_download(encoder, "config.json"))
    except LocalEntryNotFoundError:
        why = "and HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "and the hub cannot be reached"
        raise DataError(
            f"{encoder}: not in the cache of the Hugging Face hub, {why}; {get}"
        ) from None
    except EntryNotFoundError:
        raise DataError(f"{encoder}: has no config.json: no model of transformers") from None
    except DataError as error:
        if isinstance(error.__cause__, GatedRepoError):
            raise DataError(f"{encoder}: the hub asks you to log in: `hf auth login`") from None
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise DataError(f"{encoder}: no such folder or model of the hub{meant}") from None
        raise
    commit = config.parent.name
    return Pretrained(encoder, commit, encoder, commit)
