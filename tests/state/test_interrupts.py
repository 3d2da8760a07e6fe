"""A signal ends a command with one line and its exit code, whatever runs at that moment."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.state import children, interrupts
from tests.conftest import random_graph

HIDES = {
    "an import that catches everything": "import swallowing",
    "a destructor": "class A:\n  def __del__(self): wait()\nA()",
    "a handler of exceptions": "try: wait()\nexcept BaseException: pass",
    "a callback at exit": "import atexit; atexit.register(wait)",
}
SECONDS_TO_END = 1.0
START = """
import signal, sys, time
from mmkgc_cli.state import interrupts
if len(sys.argv) == 1:  # the shell that runs the tests may ignore signals
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
interrupts.install()
def wait():
    print("ready", flush=True)
    time.sleep(20)
"""


@pytest.mark.parametrize("number", interrupts.SIGNALS)
@pytest.mark.parametrize("place", HIDES)
def test_code_of_libraries_cannot_swallow_a_signal(
    tmp_path: Path, place: str, number: signal.Signals
) -> None:
    module = "import __main__\ntry: __main__.wait()\nexcept BaseException: pass\n"
    (tmp_path / "swallowing.py").write_text(module)
    text = f"{START}sys.path.insert(0, {str(tmp_path)!r})\n{HIDES[place]}\n"
    with subprocess.Popen(
        children.python("-c", text), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    line = "interrupted" if number == signal.SIGINT else "terminated by a signal"
    assert err == f"error: {line}; run the same command again\n"


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    text = START + "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nprint('goes on')"
    ignore = (
        "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        f"os.execv(sys.executable, {children.python('-c', text, 'ignored')!r})"
    )
    done = subprocess.run(children.python("-c", ignore), capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Commands that end soon, and a training and a batch that would take hours."""
    folder = tmp_path_factory.mktemp("interrupts")
    write_graph(random_graph(30, 2, 200, 0), folder / "graph")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'[batch]\ngraphs = ["{folder / "graph"}"]\nscorers = ["rotate"]\nseeds = [0]\n'
        "[settings]\ntraining.epochs = 1000000\nvalidation.patience = 0\n"
    )
    train = ["train", "rotate", "--graph", str(folder / "graph"), "--epochs", "1000000"]
    return {
        "doctor": ["doctor"],
        "audit": ["audit", "none"],
        "scorers": ["scorers", "list"],
        "train": [*train, "--set", "validation.patience=0", "--run", "{out}"],
        "batch": ["batch", str(recipe), "--threads", "1", "--out", "{out}"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["doctor", "audit", "scorers", "train", "batch"])
def test_interrupts_of_the_first_seconds_are_one_line(
    name: str, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    """Before the first line of mmkgc runs, the interpreter itself reports the interrupt."""
    script = tmp_path / "mmkgc"
    script.write_text(
        "import os\nfrom mmkgc_cli.__main__ import main\n"
        "from mmkgc_cli.state import interrupts\nos.write(1, b'.')\nmain()\n"
    )
    is_long = name in ("train", "batch")
    for i in range(40):
        out = str(tmp_path / f"out{i}")
        arguments = [out if part == "{out}" else part for part in commands[name]]
        with subprocess.Popen(
            children.python(str(script), *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)  # the interpreter has started
            time.sleep(0.02 + (3.0 if is_long else 1.2) * i / 40)
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            if i % 2:
                process.send_signal(signal.SIGINT)
            try:
                output, err = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"interrupt {i} was lost")
        seconds = time.monotonic() - sent
        report = f"interrupt {i}: {process.returncode} after {seconds:.1f} s: {output!r} {err!r}"
        assert b"Traceback" not in err, report
        errors = [line for line in err.splitlines() if line.startswith(b"error:")]
        if process.returncode == 130:
            assert len(errors) == 1, report
            assert is_long or len(err.splitlines()) == 1, report
        else:  # its work was done, so that it only had to end
            assert not is_long, report
            assert process.returncode in (0, 3), report
            assert seconds < SECONDS_TO_END, report
