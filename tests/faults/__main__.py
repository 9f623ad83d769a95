"""The fault matrix, printed: `.venv/bin/python -m tests.faults [WORD ...]`, of the rows in whose names a WORD is.

Each fault lasts longer than in the tests, under more clients; one row takes a quarter of a minute, the whole of it some ten.
"""

import sys

import pytest

from tests.faults.matrix import Printed

if __name__ == "__main__":
    words = " or ".join(sys.argv[1:])
    chosen = ["-k", words] if words else []
    arguments = ["tests/faults", "-q", "-s", "-n0", "-p", "no:cacheprovider", "--tb=short", *chosen]
    sys.exit(pytest.main(arguments, plugins=[Printed()]))
