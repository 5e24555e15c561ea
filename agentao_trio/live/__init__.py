"""Live calls for dashboards, over Socket.IO. Needs the extra ``live``; several machines also need ``redis``.

``feed`` turns a session's records into events, ``fold`` is what a client makes of these, ``packets`` are Engine.IO and
Socket.IO on the wire: all of it without I/O. ``server`` is the embedded server, ``redis`` hands the same events to
Socket.IO servers elsewhere.
"""

from agentao_trio.live.client import Pace
from agentao_trio.live.server import LiveServer, LiveStatistics, serve

__all__ = ["LiveServer", "LiveStatistics", "Pace", "serve"]
