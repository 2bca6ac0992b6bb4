"""Measures models on this machine's CPU: what they get right, how fast, in how much memory.

`metrics.json`, written by the stage and read by the report:

- `schema`: 1.
- `host`: as `core.hostinfo.describe`, and `kernel_backend` (file of the CPU backend that llama.cpp
  chose), `kernel_features` (its own line about it).
- `variants`, one for each GGUF model, largest first, then one for each transformers dtype:
  `name` (short and unique), `file` (null for transformers), `encoding`, `engine` (`llama.cpp` or
  `transformers`), `size_bytes` (on disk), `bits_per_weight` (of the file; of the dtype for
  transformers), `parameters`,
  `accuracy` (as `intent.metrics.summarize`; decoded over the catalog, as served),
  `free` (the same for free greedy decoding; null if not asked for),
  `latency_sec` (`p50`, `p90`, `p99`, `mean`, `n`: a whole request as served, with a catalog that
  was not seen before), `latency_mode` (`constrained`), `latency_free_sec` (the same for free greedy
  decoding), `prompt_tokens_per_sec`, `decode_tokens_per_sec` (one token a pass), `load_sec` (the
  model, from a warm page cache), `start_sec` (process and imports as well), `peak_rss_bytes` (of
  the isolated process after its timed requests, everything it maps included),
  `before_load_rss_bytes` (what interpreter and libraries take of it), `pss_bytes`,
  `rss_file_bytes`, `rss_anonymous_bytes` (at the end).
- `noise`: the same model measured as if it were two: `variant`, `p50_sec` (the two), `relative`
  (their difference over the smaller), `round_spread` (largest over smallest p50 of its rounds,
  less one), `warning` (a sentence if this machine is too noisy to rank what is close, else null).
- `settings`: `dataset`, `rows`, `free_rows`, `hf_rows`, `latency_rows` (a round), `rounds`,
  `warmup`, `threads`, `accuracy_threads` (accuracy is not timed and runs one process a core),
  `context_tokens`, `seed`.

`samples.jsonl` holds every raw measurement: `phase` (`accuracy`, `latency`, `speed`), `variant`,
`row` (index in the dataset), `mode` and what was measured.
"""
