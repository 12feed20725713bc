"""`python -m llmbuild`."""

import sys

from llmbuild.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
