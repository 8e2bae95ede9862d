"""The command line, python -m tilekv."""

import sys

from tilekv.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
