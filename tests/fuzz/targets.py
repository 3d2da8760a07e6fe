"""All fuzz targets, and the oracle: an input is read correctly or refused in one line.

`run.py` counts inputs from a seed, `guided.py` is a coverage-guided fuzzer, and `test_corpus.py`
runs the inputs of the corpus and some of each target.
"""

from __future__ import annotations

import functools
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import MmkgcError
from tests.fuzz import run_targets, store_targets, text_targets
from tests.fuzz.choices import changed
from tests.fuzz.watch import Guard

CORPUS = Path(__file__).parent / "corpus"
_TEXT = [
    b"\t", b"\n", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc2\x9b", b"\x1b[31m",
    b"\xe2\x80\xae", b"\xe2\x80\xa8", b"9" * 5000, b"-1", b"1e400", b"nan", b" ", b"a",
    b"\xed\xa0\x80", b"../../x", b"/dev/zero",
]  # fmt: skip
_ALPHABET = 'ab<>_:."\\#\t \r\n019{}[]=é\0'.encode()
_TOML = [
    *_TEXT, b"[", b"]", b"[[", b"{", b"}", b'"', b"'''", b"=", b".", b"#", b"[" * 3000,
    b"a." * 3000, b"inf", b"true", b"1979-05-27", b"\n[training]\n", b"\nx = 1\n", b"[[1]]",
    b'"\\ud800"', b"0x1", b"{" + b"a={" * 1000,
]  # fmt: skip
_JSON = [
    *_TEXT, b"[", b"]", b"{", b"}", b":", b",", b'"', b"null", b"NaN", b"-Infinity", b"1e999",
    b"[" * 3000, b'{"a":' * 1000, b'"\\ud800"', b'"\\u0000"', b"true", b"{}", b"[]", b"5",
]  # fmt: skip
_BINARY = [
    b"\0" * 8, b"\xff" * 8, b"\x7f", b"\1\0\0\0", (1 << 40).to_bytes(8, "little"),
    (1 << 62).to_bytes(8, "little"), b"PK\5\6", b"PK\1\2", b"NUMPY", b"'<f4'", b"'O'", b"'|V8'",
    b"(5, 4)", b"(-1, 4)", b"(1000000000000, 4)", b"F64", b"BF16", b"[0,", b"data_offsets",
]  # fmt: skip


# What a fix tells the user to do.
_FIX = re.compile(
    "(?:"
    "add|append|ask|change|check|choose|close|complete|convert|copy|correct|define"
    "|delete|download|end|export|extract|fetch|free|get|give|import|install|leave|list"
    "|lower|make|mask|merge|move|name|number|omit|open|pass|point|prepare|provide|put"
    "|raise|read|reduce|remove|rename|reorder|repair|reshape|restore|resume|rewrite"
    "|run|save|see|select|separate|set|shorten|split|start|store|train|try|turn|type"
    "|unpack|update|upgrade|use|wait|widen|write"
    "|did you mean|expected|it has|it is|known:|its settings:) "
)


@dataclass(frozen=True)
class Target:
    """A reader that is fuzzed.

    `share` weighs its number of inputs; `decisions` says that its bytes are decisions of a
    generator, so that any bytes are useful; `lines` that an error may have several lines.
    """

    run: Callable[[bytes, Path], None]
    share: int
    examples: Callable[[], list[bytes]] = list
    tokens: tuple[bytes, ...] = tuple(_TEXT)
    decisions: bool = False
    lines: bool = False

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.run.__name__


def _headed(prefix: bytes, *texts: bytes) -> Callable[[], list[bytes]]:
    return lambda: [prefix[i : i + 1] + text for i, text in enumerate(texts)]


_TEXT_ITEMS = (
    b'{"/m/1": {"wikidata_id": "Q1", "label": "a", "description": "b", "alternatives": ["c"], '
    b'"wikipedia": "https://en.wikipedia.org/wiki/A"}}'
)
_texts = _headed(
    bytes(range(7)), _TEXT_ITEMS, b'{"Q1": ["Q2", "Q3"]}',
    b'{"Q1": {"label": "a", "description": "b"}}',
    b"<http://x/a> <http://www.w3.org/2002/07/owl#sameAs> <http://x/b> .\n",
    b"/m/1\t<http://rdf.freebase.com/ns/a.b>\t1.5\n", b"Q1\tP1\t1.5^^<http://x#decimal>\n",
    b"a\tb\nc\td\n",
)  # fmt: skip
_text_inputs = _headed(
    b"\0\1\2\3", b"entity\ttext\na\thello\nb\xc3\xa9\tyou\n", b'{"id": "a", "text": "hello"}\n',
    b"entity\tlabel\ttext\na\tx\thello\n", b'{"entity": "a", "label": "x", "text": "y"}\n',
)  # fmt: skip


@functools.cache
def _pictures() -> list[bytes]:
    import io

    from PIL import Image

    result = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.new(mode, (9, 7), 100).save(file, kind)
            result.append(file.getvalue())
    return result


@functools.cache
def _sounds() -> list[bytes]:
    import io
    import wave

    import numpy as np
    import soundfile

    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(range(256)) * 5)
    result = [file.getvalue()]
    for kind, subtype in (("FLAC", "PCM_16"), ("WAV", "FLOAT"), ("OGG", "VORBIS")):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(400), 8000, subtype, format=kind)
        result.append(file.getvalue())
    return result


_T, _S, _R = text_targets, store_targets, run_targets
_toml, _json, _binary = tuple(_TOML), tuple(_JSON), tuple(_BINARY)
_decisions = {"examples": _S.hdf5_decisions, "tokens": (), "decisions": True}
_ALL = [
    Target(_T.hrt, 110),
    Target(_T.htr, 100),
    Target(_T.ids, 110),
    Target(_T.vocabulary, 100),
    Target(_T.openke, 100),
    Target(_T.libkge, 60),
    Target(_T.ntriples, 110),
    Target(_T.labels, 100),
    Target(_T.archive, 80),
    Target(_T.texts, 110, _texts, _json),
    Target(_T.text_inputs_of_extract, 100, _text_inputs, _json),
    Target(_T.number_inputs_of_extract, 100, lambda: [b"a\theight\t1.5\nc\tyear\t-3e2\n"]),
    Target(_T.picture_index, 60, lambda: [b"entity\tfile\na\tx.png\nc\t../y.png\n"]),
    Target(_T.mask_file, 80, lambda: [b"a\nb \xc3\xa9\nd\n"]),
    Target(_T.picture, 90, _pictures, _binary),
    Target(_T.sound, 70, _sounds, _binary),
    Target(_S.npy, 20, _S.npy_examples, _binary),
    Target(_S.npz, 20, _S.npz_examples, _binary),
    Target(_S.safetensors_file, 20, _S.safetensors_examples, (*_binary, *_json)),
    Target(_S.torch_file, 15, _S.torch_examples, _binary),
    Target(_S.vectors_tsv, 20, lambda: [b"\3a\t1\t2\nb \xc3\xa9\t3\t4.5\n"]),
    Target(
        _S.id_map, 10, lambda: [b"\0a\nc\nd\ne\nzz\n", b"\1a\tK0\nc\tK3\n", b"\0" + b"2\na\t1\n"]
    ),
    Target(_S.weights, 50, _S.weights_examples, (*_binary, *_json)),
    Target(_S.checkpoint, 40, _S.checkpoint_examples, (*_binary, *_json)),
    Target(_R.recipe, 5, _R.recipe_examples, _toml, lines=True),
    Target(_R.run_config, 20, _R.config_examples, _toml, lines=True),
    Target(_R.config_upgrade, 30, _R.upgrade_examples, _toml),
    Target(_R.completion, 30, _R.completion_examples, _toml, lines=True),
    Target(_R.run_files, 5, _R.run_examples, (*_toml, *_json)),
    Target(_R.plugin_source, 35, _R.plugin_examples, (b"(" * 300, b"def ", b"class ", b"-" * 3000)),
    Target(_S.hdf5_import, 84, **_decisions),  # type: ignore[arg-type]
    Target(_S.store, 80, **_decisions),  # type: ignore[arg-type]
    Target(_S.store_use, 4, **_decisions),  # type: ignore[arg-type]
    Target(_S.graph_h5, 32, **_decisions),  # type: ignore[arg-type]
]
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


@functools.cache
def examples(name: str) -> list[bytes]:
    """Valid inputs of a target, and those of its corpus."""
    corpus = sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
    return [*TARGETS[name].examples(), *(path.read_bytes() for path in corpus)]


def generate(name: str, seed: int, number: int) -> bytes:
    """The input of a number; the same for the same seed, corpus and code."""
    source = random.Random(f"{seed}/{name}/{number}")
    target = TARGETS[name]
    if target.decisions and source.random() < 0.9:
        return source.randbytes(160)
    if source.random() < 0.05:
        return bytes(source.choices(_ALPHABET, k=source.randrange(80)))
    values = examples(name)
    return changed(source.choice(values), source.choice(values), source, target.tokens)


@functools.cache
def guard() -> Guard:
    """The audit hook of this process."""
    return Guard()


def check(name: str, data: bytes, folder: Path) -> bool:
    """Runs a target in an empty folder and empties it; returns whether the input was accepted.

    Raises:
        AssertionError: the result is wrong, or the error is not one printable line with the path
            of a file and a fix.
        Exception: any other error of the reader.
    """
    target = TARGETS[name]
    watched = guard()
    watched.folder, watched.found = str(folder), []
    try:
        target.run(data, folder)
    except MmkgcError as error:
        message = str(error)
        lines = message.split("\n") if target.lines else [message]
        # A recipe names other files, which may be missing.
        assert str(folder) in message or (
            target.lines and re.search("toml|no such file", message)
        ), message
        for line in lines:
            _check_line(line)
        return False
    else:
        return True
    finally:
        watched.folder = None
        paths = list(folder.iterdir())
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        left = [path.name for path in paths if path.suffix in (".tmp", ".part")]
        assert not left, f"temporary files were left: {left}"
        assert not watched.found, watched.found


def _check_line(line: str) -> None:
    assert line.isprintable(), f"not printable: {line!r}"
    assert "Traceback" not in line, line
    assert len(line) < 20_000, "the message is too long"
    problem, _, fix = line.rpartition("; ")
    assert problem, f"no problem or no fix: {line}"
    assert _FIX.match(fix), f"not a fix: {fix!r} in {line}"
