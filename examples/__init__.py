"""Ordinary asyncio programs, the local server they talk to, and the demo that times them."""
