"""A logger that keeps what it is given."""

from __future__ import annotations


class Lines(list[str]):
    """The lines, and their levels beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def log(self, level: int, message: str, /, *args: object) -> None:
        self.append(message % args)
        self.levels.append(level)
