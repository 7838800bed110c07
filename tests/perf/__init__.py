"""What is timed: the suite's loop against ordinary ones (`python -m tests.perf.speed`), and its parts for pytest."""

import sys
from pathlib import Path

# As pytest has it: what lies in tests/ goes by its bare name.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
