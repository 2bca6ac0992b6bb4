"""Entry: `python -m stages.base`."""

from stages.base.params import Params
from stages.base.stage import run
from stages.core.entry import main

if __name__ == "__main__":
    raise SystemExit(main("base", Params, run))
