"""Watching a policy fly: the flight, what is told of it over a WebSocket, and the page that shows it."""
