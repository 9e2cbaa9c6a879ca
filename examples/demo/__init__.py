"""Runs the examples on asyncio, uvloop and Weft in turn, and compares what was measured."""
