"""Discovery and loading of plugins, on scorers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.plugins import BUILT_IN, PluginRegistry, declaration, discover, find, outline
from mmkgc_cli.sampling.registry import SAMPLERS
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.scoring.scaffold import QUERY
from tests.conftest import ROOT

GOOD = QUERY.replace("One line about the scorer, which `mmkgc scorers list` shows.", "Good.")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``./scorers`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scorers").mkdir()
    return tmp_path / "scorers"


def test_sources_come_in_order_and_the_first_of_a_name_is_used(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, names in ((local, ["rotate", "one"]), (a, ["one", "two"]), (b, ["two", "three"])):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.py").write_text(f"# {folder} {name}\n{GOOD}")
    monkeypatch.setenv("MMKGC_SCORERS", os.pathsep.join(map(str, [a, b, tmp_path / "none"])))
    found = discover(SCORERS)
    origins = {name: (plugin.origin, plugin.file) for name, plugin in found.plugins.items()}
    assert origins["rotate"][0] == BUILT_IN
    assert origins["one"] == ("./scorers", local / "one.py")
    assert origins["two"] == ("MMKGC_SCORERS", a / "two.py")
    assert origins["three"] == ("MMKGC_SCORERS", b / "three.py")
    assert set(found.taken) == {"rotate", "one", "two"}
    assert found.taken["two"] == [
        "b/two.py: not used, as the name 'two' is taken by a/two.py (MMKGC_SCORERS); rename one of "
        "them"
    ]
    assert found.missing == [f"MMKGC_SCORERS: {tmp_path / 'none'}: no such folder"]
    assert all(find(SCORERS, name) == plugin for name, plugin in found.plugins.items())
    assert SCORERS.load("rotate").__module__ == "mmkgc_scorers.rotate"


def test_a_folder_that_is_met_again_is_no_clash(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local / "one.py").write_text(GOOD)
    (tmp_path / "link").symlink_to(local)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "one.py").write_text(GOOD)  # as where a checkout was installed
    monkeypatch.setenv("MMKGC_SCORERS", os.pathsep.join(["scorers", "link", "copy"]))
    assert discover(SCORERS).problems == []
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MMKGC_SCORERS", str(ROOT / "scorers"))
    found = discover(SCORERS)
    assert found.problems == []
    assert {plugin.origin for plugin in found.plugins.values()} == {BUILT_IN}


def test_folders_that_lead_nowhere_are_said_and_harm_nothing(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    listed = ["~nobody-of-that-name/x", "circle", "file", "", "scorers"]
    monkeypatch.setenv("MMKGC_SCORERS", os.pathsep.join(listed))
    found = discover(SCORERS)
    assert {plugin.origin for plugin in found.plugins.values()} == {BUILT_IN}
    expected = [f"MMKGC_SCORERS: {folder}: no such folder" for folder in listed[:3]]
    assert found.problems == expected


def install(site: Path, monkeypatch: pytest.MonkeyPatch, points: str) -> None:
    about = site / "mine-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[mmkgc.scorers]\n{points}\n")
    monkeypatch.syspath_prepend(str(site))
    assert metadata.version("mine") == "1.0"


def test_entry_points_are_found_and_read_without_importing_their_package(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "mine_scorers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("LOADED = True")
    (package / "first.py").write_text(GOOD)
    (package / "second.py").write_text(GOOD.replace("\nSCORER =", "\nOther ="))
    (local / "first.py").write_text("# in the way\n" + GOOD)
    install(
        tmp_path / "site",
        monkeypatch,
        "first = mine_scorers.first\nsecond = mine_scorers.second:Other\nlost = mine_scorers.lost",
    )
    found = discover(SCORERS)
    first = found.plugins["first"]
    assert (first.origin, first.file) == ("entry point of mine", package / "first.py")
    assert list(found.taken) == ["first"]
    assert outline(first, "SCORER").summary == "Good."
    lost = outline(found.plugins["lost"], "SCORER")
    assert lost.problem == "entry point of mine: mine_scorers.lost: no such module"
    assert "mine_scorers" not in sys.modules
    try:
        assert SCORERS.load("first").__module__ == "mine_scorers.first"
        assert SCORERS.load("second").__name__ == "MyScorer"
        with pytest.raises(
            DataError, match="mine_scorers.lost: cannot be imported: ModuleNotFound"
        ):
            SCORERS.load("lost")
    finally:
        for name in [name for name in sys.modules if name.startswith("mine_scorers")]:
            del sys.modules[name]


def test_helpers_and_tests_beside_plugins_are_none(local: Path) -> None:
    for name in ("_helper", "test_one", "conftest", ".hidden"):
        (local / f"{name}.py").write_text("raise RuntimeError")
    (local / "folder.py").mkdir()
    assert {plugin.origin for plugin in discover(SCORERS).plugins.values()} == {BUILT_IN}


def line_of(start: str) -> int:
    """Where in GOOD a line begins like this, from 1."""
    return 1 + next(i for i, line in enumerate(GOOD.splitlines()) if line.startswith(start))


# What the file is, what loading it says, and what reading it says where that shows it.
BROKEN = {
    "syntax": ("\n\ndef f(:\n", ":3: not valid Python: invalid syntax", True),
    "null": ("x = 1\0", ": not valid Python", True),
    "latin": (b'x = "\xff"\n', "not valid Python: (unicode error)", True),
    "raises": (
        f"{GOOD}\n\n1 / 0\n",
        f":{GOOD.count(chr(10)) + 3}: cannot be imported: ZeroDivisionError: division",
        False,
    ),
    "exits": (f"{GOOD}\nimport sys\nsys.exit(3)\n", "cannot be imported: SystemExit: 3", False),
    "imports": ("import nothing_such\nSCORER = 1", ":1: cannot be imported: ModuleNotF", False),
    "nothing": ("x = 1\n", ": SCORER: expected a subclass of ", True),
    "number": ("SCORER = 3\n", ":1: SCORER: expected a subclass of mmkgc_cli.scoring.", False),
    "base": (
        "from mmkgc_cli.scoring import Scorer\nSCORER = Scorer\n",
        ":2: SCORER: expected a subclass of mmkgc_cli.scoring.contract.Scorer, got the class Scor",
        False,
    ),
    "query": (
        GOOD.replace("def query", "def qery"),
        "MyScorer.query: expected a method query(self, entities, relations, side) (or score",
        False,
    ),
    "candidates": (
        GOOD.replace("def candidates", "def candidate"),
        "MyScorer.candidates: expected a method candidates(self, entities) (or score",
        False,
    ),
    "arguments": (
        GOOD.replace("self, entities: Tensor, relations: Tensor, side: Side", "self, e: Tensor"),
        f":{line_of('    def query')}: MyScorer.query: expected the arguments (self, entities, "
        "relations, side), got ",
        False,
    ),
    "start": (
        GOOD.replace("        generator: torch.Generator,\n", ""),
        "MyScorer.__init__: expected the arguments (self, config, n_entities, n_relations, gen",
        False,
    ),
    "metric": (
        GOOD.replace("metric = Metric.l1", 'metric = "l1"'),
        f":{line_of('    metric = ')}: MyScorer.metric: expected one of Metric.dot, Metric.l1, "
        "Metric.l2, Metric.modul",
        False,
    ),
    "no metric": (GOOD.replace("metric = Metric.l1", ""), "MyScorer.metric: expected one", False),
    "citation": (
        GOOD.replace("citation: ClassVar", "cite: ClassVar"),
        "MyScorer.citation: expected the publication to cite, got none",
        False,
    ),
    "config": (
        GOOD.replace("Config = MyScorerConfig", "Config = dict"),
        "MyScorer.Config: expected a subclass of ScorerConfig, got <class 'dict'>",
        False,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_one_line_that_names_its_file_and_the_others_work(
    local: Path, what: str
) -> None:
    content, message, readable = BROKEN[what]
    data = content if isinstance(content, bytes) else content.encode()
    (local / "broken.py").write_bytes(data)
    (local / "good.py").write_text(GOOD)
    with pytest.raises(DataError) as caught:
        SCORERS.load("broken")
    assert str(caught.value).startswith("scorers/broken.py")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    problem = outline(discover(SCORERS).plugins["broken"], "SCORER").problem
    assert bool(problem) == readable
    assert SCORERS.load("good").__name__ == "MyScorer"
    assert issubclass(SCORERS.load("rotate"), Scorer)


def test_what_a_plugin_prints_stays_out_of_the_output(
    local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (local / "loud.py").write_text(f"{GOOD}\nprint('loud')\n")
    SCORERS.load("loud")
    assert capsys.readouterr() == ("", "loud\n")


def test_a_failed_import_leaves_nothing_that_would_pass_for_a_module(local: Path) -> None:
    (local / "broken.py").write_text(f"{GOOD}\n1 / 0\n")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(DataError, match="ZeroDivisionError"):
            SCORERS.load("broken")
    assert not {name for name in set(sys.modules) - before if "broken" in name}


def test_a_file_is_run_once_and_again_after_it_was_edited(local: Path) -> None:
    file = local / "one.py"
    file.write_text(GOOD)
    first = SCORERS.load("one")
    assert SCORERS.load("one") is first is SCORERS.load_file(file)
    time = file.stat()
    # The same length and time, so that bytecode of the old one would pass for it.
    file.write_text(GOOD.replace("9.0", "7.0"))
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert SCORERS.load("one").Config().margin == 7.0


def test_an_unreadable_file_is_one_line(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (local / "one.py").write_text(GOOD)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    expected = (
        "scorers/one.py: cannot be read: Permission denied; "
        "make it readable: chmod u+r scorers/one.py"
    )
    assert outline(discover(SCORERS).plugins["one"], "SCORER").problem == expected
    with pytest.raises(MmkgcError, match=re.escape(expected)):
        SCORERS.load("one")


def test_literal_attributes_of_the_class_are_read_without_running_it(local: Path) -> None:
    text = GOOD.replace("two_way = True", 'modalities = ("image", "text")\n    two_way = bool(1)')
    (local / "one.py").write_text(text)
    constants = declaration(discover(SCORERS).plugins["one"], SCORERS).values
    assert constants["modalities"] == ("image", "text")
    assert "two_way" not in constants


@pytest.mark.parametrize(
    "definition",
    [
        "from elsewhere import SCORER",
        "from elsewhere import *",
        "if True:\n    class SCORER: ...",
        "globals()['SCORER'] = 1",
        "for SCORER in []: ...",
        "def __getattr__(name): ...",
    ],
)
def test_no_file_that_may_define_a_scorer_is_called_broken_unread(
    local: Path, definition: str
) -> None:
    (local / "one.py").write_text(definition)
    assert outline(discover(SCORERS).plugins["one"], "SCORER").problem == ""


PLUGINS = [(kind, name) for kind in (SCORERS, SAMPLERS) for name in discover(kind).plugins]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_declared_settings_are_those_of_the_class(kind: PluginRegistry[Any], name: str) -> None:
    real = kind.load(name).Config.model_fields
    settings = kind.declared_settings(name)
    assert settings is not None
    declared = settings.model_fields
    assert list(declared) == list(real)
    for key, field in real.items():
        for aspect in ("annotation", "default", "metadata", "description"):
            assert getattr(declared[key], aspect) == getattr(field, aspect), (key, aspect)
        assert declared[key].is_required() == field.is_required()


@pytest.mark.parametrize("name", discover(SCORERS).plugins)
def test_declared_values_are_those_of_the_class(name: str) -> None:
    scorer = SCORERS.load(name)
    values = declaration(find(SCORERS, name), SCORERS).values
    assert values["citation"] == scorer.citation
    assert values["metric"] == scorer.metric.name
    for key in ("modalities", "two_way", "roles", "per_relation", "uses_mask", "capturable"):
        assert values[key] == getattr(scorer, key)


def test_declarations_import_neither_plugins_nor_torch() -> None:
    code = (
        "import sys; from mmkgc_cli.scoring.registry import SCORERS; "
        "SCORERS.declared_settings('mocme'); "
        "print([m for m in ('torch', 'numpy', 'mmkgc_scorers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SETTINGS = """
import math
from typing import Annotated, Any, ClassVar, Literal, Optional
import pydantic
from pydantic import Field, field_validator
from mmkgc_cli.scoring.regularization import RegularizedConfig as Base
from mmkgc_cli.scoring.contract import Scorer

raise RuntimeError("imported")

LIMIT = 2**10
Norm = Literal["l1", "l2"]

class Mixin(Base):
    mixed: bool = True

class Settings(Mixin):
    kept: ClassVar[int] = 3
    plain: int
    some: "int | None" = None
    other: Optional[float] = Field(math.inf, gt=-1.5, le=LIMIT * 2)
    norm: Norm = "l1"
    names: list[Norm] = Field(default_factory=lambda: ["l1"], min_length=1, description="Names.")
    pair: tuple[int, float] = pydantic.Field((1, 2.0))
    strange: Annotated[int, Field(ge=3)] = compute()
    huge: int = Field(3, le=2**10**9)

    @field_validator("names")
    def _check(cls, value): ...

class Mine(Scorer):
    Config = Settings
    metric = NotKnown.l1
    modalities = ("image", *("text",))

SCORER = Mine
"""


def test_what_the_source_shows_of_settings_is_read(local: Path) -> None:
    (local / "mine.py").write_text(SETTINGS)
    plugin = find(SCORERS, "mine")
    assert plugin
    declared = declaration(plugin, SCORERS)
    assert declared.settings
    fields = declared.settings.model_fields
    assert list(fields) == [
        "regularization", "regularization_weight", "mixed", "plain", "some", "other", "norm",
        "names", "pair", "strange", "huge",
    ]  # fmt: skip
    types = {name: field.annotation for name, field in fields.items()}
    assert types["some"] == int | None
    assert types["names"] == list[Literal["l1", "l2"]]
    assert types["pair"] == tuple[int, float]
    assert types["strange"] is Any
    assert fields["strange"].default == "compute()"
    assert fields["plain"].is_required()
    assert fields["names"].get_default(call_default_factory=True) == ["l1"]
    assert fields["huge"].metadata == []
    assert declared.has_validators
    assert declared.values == {**declared.values, "modalities": ("image", "text")}
    assert "metric" not in declared.values
    assert not declared.defines("query")
    for settings in ({}, {"plain": 1, "nrom": "l1"}, {"plain": 1, "other": 3000.0}):
        with pytest.raises(ValidationError):
            declared.settings(**settings)
    assert declared.settings(plain=1, other=3.0).model_dump()["mixed"] is True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(Mixin)", "(Elsewhere)"),
        ("    mixed: bool = True", "    if True:\n        mixed: bool = True"),
        ("    mixed: bool = True", "    model_config = {'extra': 'allow'}"),
        ("    mixed: bool = True", "    mixed: bool = Field(True, alias='other')"),
        ("(Base)", "(Settings)"),
        ("Config = Settings", "Config = make()"),
        ("SCORER = Mine", "SCORER = make()"),
        ("class Mine", "class Mine(:"),
    ],
)
def test_settings_that_the_source_does_not_show_are_not_guessed(
    local: Path, old: str, new: str
) -> None:
    assert old in SETTINGS
    (local / "mine.py").write_text(SETTINGS.replace(old, new))
    assert SCORERS.declared_settings("mine") is None
