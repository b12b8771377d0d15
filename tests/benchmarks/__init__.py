"""Measurements of this project against its peers and against the bare environments."""
