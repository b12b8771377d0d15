"""Algorithms: each in one file, its options, networks, targets and loss from top to bottom."""
