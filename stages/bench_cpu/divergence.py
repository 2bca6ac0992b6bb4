"""How far a model's next-token distributions are from another's, at the tokens of right answers.

Both are fed the row's prompt and its right answer, so that they are compared in the same places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.intent.decode import Engine, prompt_tokens
from stages.intent.rows import Row


def write(engine: Engine, row: Row, folder: Path, number: int) -> dict[str, Any]:
    """Keeps the reference's log probabilities, `(tokens, vocabulary)` float32, in a file.

    Returns:
        `tokens`, how many the answer has.
    """
    answer, log_shares = _answer(engine, row)
    np.savez(_file(folder, number), answer=answer, log_shares=log_shares.astype(np.float32))
    return {"tokens": len(answer)}


def compare(engine: Engine, row: Row, folder: Path, number: int) -> dict[str, Any]:
    """The divergence of this model from the reference at each token of the answer.

    Returns:
        `tokens`, and `kl_nats`, one a token: the sum over the vocabulary of the reference's share
        times the difference of the logarithms; null where the two tokenize otherwise.
    """
    answer, log_shares = _answer(engine, row)
    with np.load(_file(folder, number)) as kept:
        reference, same = kept["log_shares"], np.array_equal(kept["answer"], answer)
    if not same or reference.shape != log_shares.shape:
        return {"tokens": len(answer), "kl_nats": None}
    reference = reference.astype(np.float64)
    kl_nats = (np.exp(reference) * (reference - log_shares)).sum(axis=1)
    return {"tokens": len(answer), "kl_nats": [max(0.0, float(one)) for one in kl_nats]}


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.npz"


def _answer(engine: Engine, row: Row) -> tuple[list[int], Any]:
    """The right answer's tokens, and the log probabilities that the model has where each is due."""
    prompt = prompt_tokens(engine, row.catalog, row.message)
    answer = engine.encode(row.completion)
    fed = [*prompt, *answer[:-1]]
    logits = engine.eval_many(fed, 0, range(len(prompt) - 1, len(fed)))
    wide = np.stack([np.asarray(one, dtype=np.float64) for one in logits])
    wide -= wide.max(axis=1, keepdims=True)
    return answer, wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
