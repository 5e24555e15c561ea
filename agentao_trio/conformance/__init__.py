"""The kit that judges gateways, rule by rule. Needs the extra ``conformance``."""

try:
    import hypothesis  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.conformance needs the extra 'conformance': pip install 'agentao-trio[conformance]'",
        name=_missing.name,
    ) from _missing
