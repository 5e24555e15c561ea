"""``python -m agentao_trio``: the command line, where the console script is not on the path."""

from agentao_trio.cli import main

main()
