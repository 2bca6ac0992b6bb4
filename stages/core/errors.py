"""Every error that Cartwright raises on purpose.

```
CartwrightError        exit 1   the run failed
├── InputError         exit 2   the user's mistake: a file, a value, a missing tool
├── MissingDependency  exit 2   a Python package that `--local` needs is not installed
└── StageFailed        exit 1   a stage did its work and the result is not acceptable
```

A message is one sentence: what is wrong, where, and what to do about it. It is printed after
`error: ` without a traceback; any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class CartwrightError(Exception):
    """A run that could not be finished."""

    exit_code = 1


class InputError(CartwrightError):
    """Something that the user gave is wrong and only the user can put it right."""

    exit_code = 2


class MissingDependency(CartwrightError):
    """A package that the requested stage imports is not installed here."""

    exit_code = 2


class StageFailed(CartwrightError):
    """A stage ran to its end and its own check, such as the parity gate, rejected the result."""
