"""The test suites of asyncio's libraries, run on asyncio and on Weft: ``python -m tests.suites``.

They are taken from the source distributions of the libraries.
"""
