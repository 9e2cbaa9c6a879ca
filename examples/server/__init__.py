"""The small local HTTP server that every example talks to: `python -m examples.server`."""
