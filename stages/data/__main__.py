"""`python -m stages.data --params p.json --out DIR`."""

from stages.core.entry import main
from stages.data.params import Params
from stages.data.stage import run

if __name__ == "__main__":
    raise SystemExit(main("data", Params, run))
