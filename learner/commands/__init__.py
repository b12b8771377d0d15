"""What every command shares: its line, its words to a person, and how it heeds signals."""
