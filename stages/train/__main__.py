"""Entry: `python -m stages.train`."""

from stages.core.entry import main
from stages.train.params import Params
from stages.train.stage import run

if __name__ == "__main__":
    raise SystemExit(main("train", Params, run))
