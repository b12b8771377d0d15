"""A policy as a package for the Hugging Face Hub: what is in it, its card, and the way there and back."""
