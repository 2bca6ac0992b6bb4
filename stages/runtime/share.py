"""Sharing a machine's cores among models that run at once."""

from __future__ import annotations

from stages.core.hostinfo import memory_limit_bytes

# Weights, a copy of them laid out for the CPU, and an interpreter with its libraries.
_COPIES = 2
_LIBRARY_BYTES = 400 << 20


def share_cores(cores: int, jobs: int, weights_bytes: int) -> tuple[int, int]:
    """How many models may run at once, and the threads of each.

    Small models gain little from a second thread, so as many run at once as memory and cores allow.

    Args:
        cores: cores to share.
        jobs: models that wait.
        weights_bytes: weights of the largest of them in memory.
    """
    fitting = memory_limit_bytes() // (_COPIES * weights_bytes + _LIBRARY_BYTES)
    running = max(1, min(cores, jobs, fitting))
    return running, max(1, cores // running)
