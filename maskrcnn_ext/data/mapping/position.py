"""Where in the training sampler's stream a sample stands: what a mapper that seeds itself by sample needs to know."""

from __future__ import annotations

from contextvars import ContextVar

# Set by who draws from the stream, such as the trainer; None where nobody tells, and a mapper has to count for itself.
stream_position: ContextVar[int | None] = ContextVar("stream_position", default=None)
