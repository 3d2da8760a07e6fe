"""``python -m mmkgc_cli``."""

from mmkgc_cli.app import main

main()
