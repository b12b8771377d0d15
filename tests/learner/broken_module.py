"""A module of a user's that cannot be imported today."""

raise RuntimeError("not today")
