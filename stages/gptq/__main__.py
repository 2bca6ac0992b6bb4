"""`python -m stages.gptq --params p.json --input model=DIR --input data=DIR --out DIR`."""

from stages.core.entry import main
from stages.gptq.params import Params
from stages.gptq.stage import run

if __name__ == "__main__":
    raise SystemExit(main("gptq", Params, run))
