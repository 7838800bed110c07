"""What each process that tests.planted forks has from its start: they need not import it, nor copy its memory."""

import sys
from pathlib import Path

from bench.entry import imports_that_stay

sys.path.insert(0, str(Path(__file__).parent))
with imports_that_stay():
    import planted  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401
