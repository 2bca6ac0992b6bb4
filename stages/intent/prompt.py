"""The text a model reads: the row's prompt and a cue after which the answer follows directly."""

from __future__ import annotations

ANSWER_CUE = "\n\nAnswer:\n"


def render(prompt: str) -> str:
    """The model's whole input text for a row's `prompt`.

    Token ids are `[BOS] + encode(render(prompt))`, then `encode(completion) + [EOS]`: the two texts
    are tokenized apart, by every engine alike, so that a prompt is token-exact everywhere.
    """
    return prompt + ANSWER_CUE
