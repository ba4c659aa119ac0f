"""``python -m pytest_mltd`` is ``mltd``."""

import sys

from pytest_mltd.cli import main

if __name__ == "__main__":
    sys.exit(main())
