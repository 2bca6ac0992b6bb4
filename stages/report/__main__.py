"""`python -m stages.report --params p.json --input bench-cpu=DIR ... --out DIR`."""

from stages.core.entry import main
from stages.report.params import Params
from stages.report.stage import run

if __name__ == "__main__":
    raise SystemExit(main("report", Params, run))
