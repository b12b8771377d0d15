"""Memories: what becomes of the experience that an algorithm learns from."""
