"""Measures models on this machine's CPU: what they get right, how fast, in how much memory.

`metrics.json`, written by the stage and read by the report:

- `schema`: 2.
- `host`: as `core.hostinfo.describe` and `machine.describe`, and `kernel_backend` (file of the CPU
  backend that llama.cpp chose), `kernel_features` (its own line about it) and
  `memory_read_bytes_per_sec` (as `machine.read_bytes_per_sec`, on as many threads).
- `variants`, one for each GGUF model, largest first, then one for each transformers dtype:
  `name` (short and unique), `file` (null for transformers), `encoding`, `engine` (`llama.cpp` or
  `transformers`), `size_bytes` (on disk), `bits_per_weight` (of the file; of the dtype for
  transformers), `parameters`,
  `accuracy` (as `intent.metrics.summarize` with `breakdown.by_slice`; decoded over the catalog, as
  served),
  `free` (the same for free greedy decoding; null if not asked for),
  `fidelity` (as `fidelity.measure`, against `reference`; null for that itself),
  `latency_sec` (`p50`, `p90`, `p99`, `mean`, `n`, and `p50_low` to `p50_high`, in which the median
  lies with 95 % confidence: a whole request as served, with a catalog that
  was not seen before), `latency_mode` (`constrained`), `latency_known_sec` (the same where the
  catalog's trie and key-value state are there, as the service keeps them; null for transformers),
  `latency_free_sec` (the same for free greedy decoding), `energy_joules_per_request` (of the timed
  constrained ones, all packages' whole use; null where it cannot be read), `prompt_tokens_per_sec`,
  `decode_tokens_per_sec` (one token a pass), `load_sec` (the model, from a warm page cache),
  `start_sec` (process and imports as well), `llama_bench` (as `llama_bench.measure`), `memory` (as
  `memory.measure`: of a process of its own, `mapped` and `read`), `peak_rss_bytes` (of the mapped
  one, everything it maps included) and `before_load_rss_bytes` (what interpreter and libraries take
  of it).
- `reference`: name of the variant that `fidelity` is against; null if there is but one.
- `noise`: the same model measured as if it were two: `variant`, `p50_sec` (the two), `relative`
  (their difference over the smaller), `round_spread` (the largest such difference within a
  round), `warning` (a sentence if this machine is too noisy to rank what is close, else null).
- `threads`: as `timing.sweep`.
- `settings`: `dataset`, `rows`, `free_rows`, `hf_rows`, `latency_rows` (a round), `rounds`,
  `warmup`, `sweep_rounds`, `kl_rows`, `llama_bench_runs`, `threads`, `pinned_cores`,
  `accuracy_threads` (accuracy is not timed and runs one process a core), `context_tokens`, `seed`.

`samples.jsonl` holds every raw measurement: `phase` (`accuracy`, `divergence`, `latency`,
`speed`, `threads`, `memory`), `variant`, `row` (index in the dataset), `mode` and what was
measured.
"""
