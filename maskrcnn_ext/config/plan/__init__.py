"""Plans a training: rules turn the fingerprint of a data set and the machine into choices, each with its value, reason and overrides."""

from maskrcnn_ext.config.plan.choice import Choice, Plan
from maskrcnn_ext.config.plan.config_text import write_config
from maskrcnn_ext.config.plan.machine import Machine, inspect_machine
from maskrcnn_ext.config.plan.planning import plan

__all__ = ["Choice", "Machine", "Plan", "inspect_machine", "plan", "write_config"]
