"""Statistics: pure functions of arrays, and of a ``numpy.random.Generator`` where chance is used."""
