"""python -m resbench: the same as the command resbench."""

from resbench import main

if __name__ == "__main__":  # not in the worker processes of `plan`, which import this module
    main()
