"""What iterators have counted, for their statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dataclasses import Field


class Counts:
    """Base of dataclasses of counts: these are there by name, too."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def keys(self) -> list[str]:
        """Give the names, so that ``dict(stats)`` works."""
        return list(self.__dataclass_fields__)

    def __getitem__(self, name: str) -> int:
        if name not in self.keys():
            raise KeyError(name)
        value: int = getattr(self, name)
        return value
