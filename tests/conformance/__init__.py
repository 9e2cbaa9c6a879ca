"""CPython's own ``test.test_asyncio``, run on a loop that is not asyncio's.

``python -m tests.conformance`` runs the suite of the running interpreter on Weft and compares what
happens with ``expectations.toml``.  The modules, in the order in which a run passes through them:

``scope``         which modules and classes of the suite run, in which variants, and why some do not
``plug``          puts the loop under test, and its future and task types, where the suite looks
``child``         one process that runs one module and writes down each outcome as it happens
``processes``     starts such processes, watches their time limits, goes on after a crash
``expectations``  reads the list of tests that may fail, and for which reason
``verdict``       holds the outcomes against that list
``report``        the table, the JSON file and the generated part of ``docs/conformance.md``
"""
