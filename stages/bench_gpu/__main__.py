"""`python -m stages.bench_gpu --params p.json --input model=DIR --input gptq=DIR ... --out DIR`."""

from stages.bench_gpu.params import Params
from stages.bench_gpu.stage import run
from stages.core.entry import main

if __name__ == "__main__":
    raise SystemExit(main("bench-gpu", Params, run))
