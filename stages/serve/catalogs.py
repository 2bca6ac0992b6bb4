"""Catalogs that clients registered, by name; they last as long as the process."""

from __future__ import annotations

from collections.abc import Sequence

from stages.serve.refusals import Refused


class Catalogs:
    """Used by the event loop's thread alone.

    Args:
        limit: most that may be registered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: dict[str, tuple[str, ...]] = {}

    def put(self, name: str, lines: Sequence[str]) -> bool:
        """Registers a checked catalog, or exchanges one; returns whether the name is new.

        Raises:
            Refused: As many are registered as may be.
        """
        is_new = name not in self._lines
        if is_new and len(self._lines) >= self._limit:
            raise Refused(
                409, f"{self._limit:,} catalogs are registered, as many as may be: delete one"
            )
        self._lines[name] = tuple(lines)
        return is_new

    def get(self, name: str) -> tuple[str, ...]:
        """The lines of a catalog.

        Raises:
            Refused: There is none of that name.
        """
        if name not in self._lines:
            raise Refused(
                404, f"no catalog {name!r} is registered: PUT /v1/catalogs/ID first", "catalog_id"
            )
        return self._lines[name]

    def delete(self, name: str) -> None:
        """Forgets a catalog.

        Raises:
            Refused: There is none of that name.
        """
        self.get(name)
        del self._lines[name]
