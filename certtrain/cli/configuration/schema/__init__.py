"""The configuration, typed and range-checked; a key that is not declared here does not exist.

One file for the nodes of each subject, `nodes` for what they have in common, and `run` for the whole.
"""

from certtrain.cli.configuration.schema.nodes import Node, Strict
from certtrain.cli.configuration.schema.run import RunConfig, parse, plain

__all__ = ["Node", "RunConfig", "Strict", "parse", "plain"]
