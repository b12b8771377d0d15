"""Other libraries' algorithms as trials of a comparison: their settings, our environments, budget and evaluation.

A peer has no checkpoints here: theirs are pickles, which we do not load. A run that was cut short starts again.
"""
