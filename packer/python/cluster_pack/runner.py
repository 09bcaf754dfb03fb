"""Calls a pickled function. Runs as a script, shipped with the function: the environment need not have this package.

`runner.py FUNCTION [LEVEL]` calls it and ends as it does; `runner.py FUNCTION --result FILE` leaves what it returned or
raised in a file.
"""

import logging
import os
import sys
import traceback

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _pickle():
    try:
        import cloudpickle

        return cloudpickle
    except ImportError:
        import pickle

        return pickle


def _call(path):
    with open(path, "rb") as file:
        payload = _pickle().load(file)
    return payload["func"](*payload.get("args", ()), **payload.get("kwargs", {}))


def _outcome(path):
    """The outcome of the call as a pickle, of text alone where it cannot be pickled."""
    try:
        outcome = {"value": _call(path)}
    except Exception as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        outcome = {"error": error, "summary": "%s: %s" % (type(error).__name__, error), "traceback": text}
    try:
        data = _pickle().dumps(outcome)
        _pickle().loads(data)
        return data
    except Exception as error:
        if "value" in outcome:
            outcome = {"traceback": "", "summary": "the result cannot be pickled: %s" % error}
        outcome.pop("error", None)
        return _pickle().dumps(outcome)


def main(arguments):
    function = arguments[0]
    if arguments[1:2] == ["--result"]:
        data = _outcome(function)
        with open(arguments[2] + ".new", "wb") as file:
            file.write(data)
        os.replace(arguments[2] + ".new", arguments[2])
        return
    level = arguments[1] if arguments[1:] and arguments[1] in LEVELS else "INFO"
    logging.basicConfig(level=level)
    _call(function)


if __name__ == "__main__":
    main(sys.argv[1:])
