"""Measurements of real data, by name: each function takes a dataset and returns the rows of a table."""

MEASUREMENTS: dict = {}


def measurement(version: int):
    """Register a function `(data, *, seed, **settings) -> list of rows`; bump `version` when its numbers change."""

    def register(function):
        function.version = version
        MEASUREMENTS[function.__name__] = function
        return function

    return register
