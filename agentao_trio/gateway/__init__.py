"""The embedded gateway: the whole protocol, on a laptop, with far ends that behave as asked.

::

    async with open_gateway() as gateway, open_session(gateway.endpoint, tls=gateway.tls) as session:
        ...

Who answers which number is in :data:`FAR_ENDS`.
"""

from agentao_trio.gateway.farends import FAR_ENDS, FarEnd, find_caller
from agentao_trio.gateway.leg import Handset
from agentao_trio.gateway.model import BucketAction, GatewayModel, GatewayStatistics
from agentao_trio.gateway.server import Gateway, ServerStatistics, open_gateway
from agentao_trio.gateway.settings import GatewaySettings, Trunk

__all__ = [
    "FAR_ENDS",
    "BucketAction",
    "FarEnd",
    "Gateway",
    "GatewayModel",
    "GatewaySettings",
    "GatewayStatistics",
    "Handset",
    "ServerStatistics",
    "Trunk",
    "find_caller",
    "open_gateway",
]
