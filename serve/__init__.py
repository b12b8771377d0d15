"""A trained policy's way out: over HTTP, on a page where one watches it fly, and to the Hugging Face Hub."""
