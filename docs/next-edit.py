"""Reads tables."""

import logging

logger = logging.getLogger(__name__)


def load(path):
    print("loading", path)
    with open(path) as file:
        return file.read()


def parse(text):
    rows = [line.split() for line in text.splitlines()]
    print("parsed", len(rows))
    return rows


def save(path, rows):
    print("saving", path)
    with open(path, "w") as file:
        for row in rows:
            file.write(" ".join(row) + "\n")
    print("saved", len(rows))
