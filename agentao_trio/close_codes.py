"""What streams and connections are ended with: QUIC's application error codes (PROTOCOL section 12).

No published gateway says which it uses; these are what the client and the embedded gateway of this package agree on.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode"]


class CloseCode(IntEnum):
    """Why a stream was reset or stopped, or a connection closed. Peers may send other numbers."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    UNAUTHORIZED = 2
    TOO_LARGE = 3
    SHUTTING_DOWN = 4
