"""python .../resbench/start.py MODULE WORDS: what `python -m MODULE WORDS` does, with the wheel's own folders first.

-m looks for a module in the current folder first, which may have a launch.py or a package `models` of its own.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # not in the worker processes of `plan`, which import this module
    here = str(Path(__file__).resolve().parent)
    if sys.path[:1] != [here]:  # as with python -P
        sys.path.insert(0, here)
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
