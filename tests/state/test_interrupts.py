"""A signal ends a command with one line and its exit code, whatever runs at that moment."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from mmkgc_cli.state import children, interrupts

HIDES = {
    "an import that catches everything": "import swallowing",
    "a destructor": "class A:\n  def __del__(self): wait()\nA()",
    "a handler of exceptions": "try: wait()\nexcept BaseException: pass",
    "a callback at exit": "import atexit; atexit.register(wait)",
}
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


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["doctor"], ["audit", "none"], ["scorers", "list"]])
def test_interrupts_of_the_first_second_are_one_line(arguments: list[str], tmp_path: Path) -> None:
    """Before the first line of mmkgc runs, the interpreter itself reports the interrupt."""
    script = tmp_path / "mmkgc"
    script.write_text(
        "import os\nos.write(1, b'.')\nfrom mmkgc_cli.__main__ import main\n"
        "from mmkgc_cli.state import interrupts\nmain()\n"
    )
    for i in range(40):
        with subprocess.Popen(
            children.python(str(script), *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)  # the interpreter has started
            time.sleep(0.02 + 1.2 * i / 40)
            process.send_signal(signal.SIGINT)
            if i % 2:
                process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 3, 130), err
        assert len(err.splitlines()) <= 1 or process.returncode != 130, err
        assert b"Traceback" not in err, err
