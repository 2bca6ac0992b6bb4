"""Measures variants of a model on an NVIDIA GPU: speed, memory, energy and accuracy.

`metrics.json` has `schema`, `host`, `cells` (a variant on an engine at a batch size), `requests`
(whole constrained requests), `accuracy`, `profiles` (where a decoding step's time goes), `noise`
and `settings`; `samples.jsonl` every raw sample. Times are in seconds, memory in bytes, energy in
joules.
"""
