"""The benchmark suite: Weft beside asyncio and its rivals, in one run on one machine.

`python -m benchmarks` measures and reports; docs/performance.md says what and how.
"""
