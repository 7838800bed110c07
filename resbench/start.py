"""python .../resbench/start.py MODULE WORDS: what `python -m MODULE WORDS` does, with our own folders first.

-m looks for a module in the current folder first, which may have a launch.py or a package `models` of its own.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # not in the worker processes of `plan`, which import this module
    here = Path(__file__).resolve().parent
    if sys.path[:1] == [str(here)]:  # not with python -P
        del sys.path[0]
    sys.path.insert(0, str(here if (here / "bench").is_dir() else here.parent))  # of a wheel, or of a checkout
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
