"""Which rows of an earlier sitting stay: `python3 -m unittest` in this directory."""

import unittest

import run

ENVIRONMENT = {"files": 1}
FIRST = {"date": "1", "revision": "a", "machine": "m", "tools": "t", "environments": {"e": ENVIRONMENT}}
LATER = {**FIRST, "date": "2", "revision": "b"}


def table(measurement, *names):
    """A table with a row of each name."""
    rows = [{"name": name, "values": {"seconds": {"median": 1.0}}} for name in names]
    counts = {"load_before": 0, "load_after": 0, "removals": 0}
    return {"measurement": measurement, "environment": "e", "baseline": "peer", "columns": {"seconds": "s"}, "rows": rows, **counts}


def sitting(former, facts, *tables):
    """The results of a sitting that is added to `former`."""
    return {**facts, "tables": run.merged(former, facts, list(tables))}


def rows(results, measurement):
    """The names of the rows of a table, those with a ratio marked."""
    found = next(t for t in results["tables"] if t["measurement"] == measurement)
    return [row["name"] + (" ×" if "ratio" in row else "") for row in found["rows"]]


class Merged(unittest.TestCase):
    """`run.merged`."""

    def setUp(self):
        self.first = sitting({"tables": [], "environments": {}}, FIRST, table("creation", "this project", "peer"))

    def test_rows_of_one_revision_stand_together(self):
        second = sitting(self.first, {**FIRST, "date": "2"}, table("creation", "peer", "other"))
        self.assertEqual(rows(second, "creation"), ["this project", "peer ×", "other ×"])

    def test_others_stay_beside_a_newer_revision_and_ours_go(self):
        # Another measurement between the two hides nothing: a table has its own sitting.
        between = sitting(self.first, LATER, table("memory", "this project"))
        third = sitting(between, {**LATER, "date": "3"}, table("creation", "this project, lazy"))
        self.assertEqual(rows(third, "creation"), ["peer ×", "this project, lazy"])
        self.assertEqual(third["tables"][-1]["rows"][0]["sitting"]["revision"], "a")

    def test_others_go_with_their_versions_their_environment_and_their_machine(self):
        for changed in {"tools": "u"}, {"environments": {"e": {"files": 2}}}, {"machine": "n"}:
            later = sitting(self.first, {**LATER, **changed}, table("creation", "this project"))
            self.assertEqual(rows(later, "creation"), ["this project"], changed)

    def test_rows_of_other_tables_are_of_one_revision(self):
        first = sitting({"tables": [], "environments": {}}, FIRST, table("memory", "this project", "peer"))
        later = sitting(first, LATER, table("memory", "this project"))
        self.assertEqual(rows(later, "memory"), ["this project"])

    def test_what_could_not_be_measured_leaves_the_table(self):
        later = sitting(self.first, LATER, {**table("creation"), "columns": {}})
        self.assertEqual(rows(later, "creation"), ["this project", "peer"])
