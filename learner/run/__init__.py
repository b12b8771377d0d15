"""A run: what it is to do, who does it, and how it goes."""
