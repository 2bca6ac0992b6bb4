"""The service: one GGUF model behind HTTP, answers constrained to the catalog.

`POST /v1/intent` with `catalog` (lines) and `message`; `GET /health` (alive) and `/ready` (the
model is loaded and has answered a golden request); `/docs` for the rest. One model and one thread
answer one request at a time, first come first served; `--queue` bounds how many wait, the rest get
429.

A catalog has at most 1,000 lines, and with the message it must fit the model's context: 2,048
tokens for the shipped model (about 100 to 150 product lines), at most `--context-tokens` for one
that was trained on more. A longer one is refused with its length and the limit before the model
runs. The key-value cache is allocated for the whole context at start, so memory does not grow with
use: 16 heads-bytes a token times layers for F16, 8 KiB a token for the shipped model and 32 KiB for
Llama 3.2 1B (128 MiB at the default of 4,096 tokens).

SIGTERM closes the port, answers what was accepted, and ends with exit code 0: give it the time that
a full queue takes.
"""
