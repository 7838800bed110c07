"""The command line of bench/activations/channels.py, which `python -m reports activations` starts and explains.

Imports no torch before its options are read.
"""

from __future__ import annotations

from pathlib import Path

from bench.arguments import Parser
from bench.entry import guarded
from bench.errors import one_sentence


def main() -> None:
    """Draw and exit. Exit codes: 0 ok, 2 the request cannot be met, 70 what nobody foresaw, 130 interrupted."""
    parser = Parser("python -m bench.activations", (__doc__ or "").partition("\n")[0])
    for name in ("checkpoint", "image"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--limit-eval", type=int)
    for name in ("--layers", "--model", "--data"):
        parser.add_argument(name)
    with one_sentence():
        options = parser.parse_args()
        from bench.activations import channels

        channels.run(options)


if __name__ == "__main__":
    with guarded():
        main()
