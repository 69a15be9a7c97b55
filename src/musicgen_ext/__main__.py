"""``python -m musicgen_ext``: the same as the command ``musicgen-ext``."""

import sys

from musicgen_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
