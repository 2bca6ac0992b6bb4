"""`python -m stages.gguf --params p.json --input model=DIR --input data=DIR --out DIR`."""

from stages.core.entry import main
from stages.gguf.params import Params
from stages.gguf.stage import run

if __name__ == "__main__":
    raise SystemExit(main("gguf", Params, run))
