"""Networks in torch: the twins of those that act without it."""
