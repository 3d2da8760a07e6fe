"""``python -m mmkgc_cli``."""

import sys

# `python -m` searches the working directory first, where a downloaded `random.py` may lie. The
# package itself has been found, wherever it is.
if not sys.flags.safe_path and sys.path:
    del sys.path[0]

from mmkgc_cli.app import main

main()
