"""The same task in other libraries, timed by the same rules."""
