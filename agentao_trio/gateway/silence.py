"""How a request ends that is not answered: one word for the model to return and the server to carry out."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["Silence"]


class Silence(Enum):
    """What a client gets instead of a reply."""

    #: The end of the stream, without a byte.
    NOTHING = auto()
    #: A reset stream: the request is refused, and its reply has no place for an error.
    RESET = auto()
    #: The same for want of a good token.
    UNAUTHORIZED = auto()
    #: Nothing at all, for as long as the stream may stay open.
    WITHHELD = auto()
