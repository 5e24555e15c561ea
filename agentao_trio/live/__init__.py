"""Live calls for dashboards, over Socket.IO. Needs the extra ``live``; several machines also need ``redis``.

``feed`` turns a session's records into events, ``fold`` is what a client makes of these, ``packets`` are Engine.IO and
Socket.IO on the wire: all of it without I/O. ``server`` is the embedded server, ``redis`` hands the same events to
Socket.IO servers elsewhere.
"""

try:
    import h11  # noqa: F401
    import msgspec  # noqa: F401
    import wsproto  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.live needs the extra 'live': pip install 'agentao-trio[live]'", name=_missing.name
    ) from _missing

from agentao_trio.live.client import Pace
from agentao_trio.live.server import LiveServer, LiveStatistics, serve

__all__ = ["LiveServer", "LiveStatistics", "Pace", "serve"]
