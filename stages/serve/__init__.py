"""The service: one GGUF model behind HTTP, answers constrained to the catalog.

`POST /v1/intent` with `catalog` (lines) and `message`; `GET /health` (alive) and `/ready` (the
model is loaded and has answered a golden request); `/docs` for the rest. One thread decodes the
requests that are in work together, first come first served; `--queue` bounds how many there may be,
the rest get 429. A client that goes away gives up its place before the next pass.

A catalog's part of the prompt is computed once and kept: a request on a catalog that was asked
about lately computes its message alone (`cached_tokens` in the answer says how much it did not).

A catalog has at most 1,000 lines, and with the message it must fit the model's context: 2,048
tokens for the shipped model (about 100 to 150 product lines), at most `--context-tokens` for one
that was trained on more. A longer one is refused with its length and the limit before the model
runs.

Memory is bounded before a request is accepted: by the model, read and not mapped, the libraries and
working memory (60 to 130 MB, less than a quarter of a model of 600 MB), and `--kv-bytes`, which the
service prints at its start. A quarter of those is the cache of the requests in work, allocated at
once; the rest is for catalogs that are kept, those used last. A token takes 4 KiB with the shipped
model and 32 KiB with Llama 3.2 1B; the default is eight times what the longest request takes, and
at least 128 MiB: 128 and 512. `python -m stages.serve.measure` says what it gains on one's own
rows.

SIGTERM closes the port, answers what was accepted, and ends with exit code 0: give it the time that
a full queue takes.
"""
