"""What each event loop for asyncio can do, tried and not assumed: ``python -m tests.rivals``."""
