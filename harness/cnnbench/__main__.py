"""``python -m cnnbench``: just as the command ``cnnbench``, with the same modules to import.

Python puts the working directory first among the places to import from, and does not for the command. A suite that lies
beside a module, both from a stranger, would import it.
"""

import os
import sys
from pathlib import Path

import cnnbench
from cnnbench.cli import main

if __name__ == "__main__":
    first = Path(sys.path[0] or os.curdir).resolve()
    if not sys.flags.safe_path and first == Path.cwd() != Path(cnnbench.__file__).parents[1].resolve():
        del sys.path[0]
    sys.exit(main())
