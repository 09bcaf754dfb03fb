"""Checks results against the targets of this project."""

MIB = 2**20


def ratio(row, key):
    """The ratio of a row to its table's baseline."""
    return lambda rows: rows.get(row, {}).get("ratio", {}).get(key)


def median(row, key):
    """The median of a row."""
    return lambda rows: rows.get(row, {}).get("values", {}).get(key, {}).get("median")


def over(row, key, other):
    """The median of `row` over that of `other`."""

    def found(rows):
        values = median(row, key)(rows), median(other, key)(rows)
        return values[0] / values[1] if all(values) else None

    return found


def above(row, key, other):
    """The milliseconds by which the median of `row` is above that of `other`; both are in seconds."""

    def found(rows):
        values = median(row, key)(rows), median(other, key)(rows)
        return (values[0] - values[1]) * 1e3 if all(values) else None

    return found


OURS = "this project"
OUR_START = "pex's, cpack-boot"

# (measurement, environment, description, function of the results, at most, unit)
TARGETS = [
    ("creation", "torch", "creation, of FAST_MID_BIG's", ratio(OURS, "seconds"), 0.7, "×"),
    ("creation", "torch", "size, below the 3,737 MiB of packed modes", median(OURS, "mib"), 3737, "MiB"),
    ("again", "torch", "creation again, nothing changed", median("nothing changed", "seconds"), 0.5, "s"),
    ("again", "torch", "creation again, one changed", median("one small distribution changed", "seconds"), 1.0, "s"),
    ("first-run", "torch", "cold start and import, of FAST_MID_BIG's", ratio(OURS, "total"), 0.3, "×"),
    ("budget", "torch", "cold boot alone, of its budget", ratio(OURS, "seconds"), 1.3, "×"),
    ("first-run", "scientific", "cold start and import, of a plain PEX's", ratio(OURS, "total"), 1 / 3, "×"),
    ("relink", "scientific", "new environment of known layers, of uv's", ratio(OURS, "seconds"), 1.0, "×"),
    ("extraction", "scientific", "extraction, of ripunzip's time", ratio(OURS, "seconds"), 1 / 1.7, "×"),
    ("extraction", "scientific", "extraction, of its budget", over(OURS, "seconds", "budget"), 1.3, "×"),
    ("warm", None, "warm start over the environment's python", lambda rows: rows.get(OURS, {}).get("over_ms"), 5, "ms"),
    ("together", None, "16 cold starts at once, of one alone", ratio("16 at once", "exec"), 1.3, "×"),
    ("together", None, "16 lazy imports at once, of one alone", over("16 at once, lazy", "end", "one alone, lazy"), 1.5, "×"),
    ("memory", None, "most resident memory", median(OURS, "resident_mib"), 256, "MiB"),
    ("memory", None, "most address space", median(OURS, "address_mib"), 2048, "MiB"),
    ("pex", "pandas", "cold start of pex's file, of plain Python's", ratio(OUR_START, "cold"), 0.3, "×"),
    ("pex", "pandas", "the same of a file written here", ratio("this project's, cpack-boot", "cold"), 0.3, "×"),
    ("pex", "pandas", "warm start of pex's file, of plain Python's", ratio(OUR_START, "warm"), 0.5, "×"),
    ("pex", "torch", "cold start of pex's file, of plain Python's", ratio(OUR_START, "cold"), 0.25, "×"),
    ("pex", "torch", "warm start of pex's file over the environment's", above(OUR_START, "warm", "the environment itself"), 10, "ms"),
    ("pex-writing", "pandas", "writing a zipapp, of pex's time", ratio("this project, PEX", "seconds"), 0.2, "×"),
    ("executors", "spark", "cold executors, of a PEX's", ratio(OURS, "cold"), 0.25, "×"),
    ("executors", "spark", "cold executors, of an archive's that each unpacks", over(OURS, "cold", "venv-pack2"), 0.25, "×"),
    ("packing", "conda", "packing, of conda-pack's time", ratio(OURS, "seconds"), 0.3, "×"),
    ("packing", "conda", "packing, of conda-pack's without an archive", over(OURS, "seconds", "conda-pack, no-archive"), 1.0, "×"),
    ("packing", "scientific", "writing a tar.gz, of venv-pack2's time", ratio(f"{OURS}, tar.gz", "seconds"), 0.35, "×"),
    ("archives", "conda", "cold start, of tar's and conda-unpack's", ratio(OURS, "cold"), 0.3, "×"),
    ("archives", "scientific", "cold start of venv-pack2's, of tar's", ratio("venv-pack's, cpack-boot", "cold"), 0.6, "×"),
    ("wheelhouse", "scientific", "cold start, of uv's installation", ratio(OURS, "cold"), 1.0, "×"),
    ("executors", "spark", "warm executors over the environment's", above(OURS, "warm", "the environment itself"), 50, "ms"),
]


def check(tables):
    """The value of each measured target, and whether it is reached."""
    found = []
    for table in tables:
        rows = {row["name"]: row for row in table["rows"]}
        for measurement, environment, what, how, limit, unit in TARGETS:
            if measurement != table["measurement"] or environment not in (None, table["environment"]):
                continue
            value = how(rows)
            found.append(
                {
                    "environment": table["environment"],
                    "target": what,
                    "at_most": round(limit, 3),
                    "found": None if value is None else round(value, 3),
                    "unit": unit,
                    "reached": None if value is None else value <= limit,
                }
            )
    return found
