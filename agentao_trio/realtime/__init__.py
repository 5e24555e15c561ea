"""The event system of Realtime models, and the bridge from a phone call to one. Needs the extra ``realtime``.

``protocol`` are the events as values, ``conversation`` is what they add up to, ``sequence`` says whether they came in
a legal order, ``failures`` what to do about an error, ``journal`` keeps them for later: all of it without I/O.
``session`` is the connection to a model, ``bridge`` the phone call on it, ``simulator`` a model for when there is none.
"""

try:
    import msgspec  # noqa: F401
    import websockets  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.realtime needs the extra 'realtime': pip install 'agentao-trio[realtime]'", name=_missing.name
    ) from _missing
