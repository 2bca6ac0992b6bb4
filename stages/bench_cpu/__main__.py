"""`python -m stages.bench_cpu [--params p.json] --input gguf=DIR [--input ...] --out DIR`."""

from stages.bench_cpu.params import Params
from stages.bench_cpu.stage import run
from stages.core.entry import main

if __name__ == "__main__":
    raise SystemExit(main("bench-cpu", Params, run))
