"""The sections of the catalogue, in order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["SECTIONS"]

#: Letters to what the section is about.
SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "FRM": "Framing",
        "SER": "Serialisation",
        "RPC": "Requests and replies",
        "ERR": "Refusals",
        "AUT": "Authentication and isolation",
        "SUB": "Subscriptions",
        "EVT": "Events",
        "RPL": "Replay and reconnecting",
        "UPL": "Audio to the far end",
        "DWN": "Audio from the far end",
        "EOS": "The end of audio",
        "FLW": "Flow control",
        "ROB": "Robustness",
    }
)
