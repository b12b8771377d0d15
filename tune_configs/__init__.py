"""Comparison and search: many training runs under Ray Tune, and what can honestly be said of them."""
