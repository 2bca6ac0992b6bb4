"""What was used last is kept, as much of it as a bound allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """A mapping that lets go of what was not used for longest; used by one thread.

    Args:
        limit: the most that the sizes of all values may add up to.

    Attributes:
        size: what they add up to.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used; None if there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keeps a value that is not kept yet; one that is larger than the limit is not."""
        if size > self.limit or key in self._values:
            return
        while self.size + size > self.limit:
            _, (_, freed) = self._values.popitem(last=False)
            self.size -= freed
        self._values[key] = value, size
        self.size += size
