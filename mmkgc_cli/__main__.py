"""The entry point of the console script and of ``python -m mmkgc_cli``."""

import os
import sys

# `python -m` searches the working directory first, where a downloaded `random.py` may lie. The
# package itself has been found, wherever it is.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path:
    del sys.path[0]

from mmkgc_cli.state import interrupts


def main() -> None:
    """Runs the command line; signals are handled from the first import on."""
    interrupts.install()
    # Libraries that start Python themselves, as wandb does, pass this on to their children.
    os.environ["PYTHONSAFEPATH"] = "1"
    from mmkgc_cli.app import main as run

    run()


if __name__ == "__main__":
    main()
