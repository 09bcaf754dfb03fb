"""Tables of results: rows with medians, spreads and ratios to a baseline of the same run; and the context of measurements."""

from clock import NotRun, alternate, read_into_page_cache, settle, summary

# The smallest Python program.
PASS = "pass"


class Context:
    """The context of a measurement."""

    def __init__(self, scratch, tools, programs, subjects, options, say):
        self.scratch, self.tools, self.programs = scratch, tools, programs
        self.subjects, self.options, self.say = subjects, options, say
        self.artifacts = {}

    @property
    def ours(self):
        """This project."""
        return self.subjects[0]

    def selected(self):
        """The ways that were asked for: of that name, else those whose name has the text."""
        names = {s.name.lower() for s in self.subjects}

        def is_meant(name, text):
            return name == text if text in names else text in name

        wanted = [text.lower() for text in self.options.only or []]
        return [s for s in self.subjects if not wanted or any(is_meant(s.name.lower(), text) for text in wanted)]

    def artifact(self, subject, environment):
        """What `subject` makes of `environment`: made once, not timed here, in the page cache afterwards."""
        key = subject.made_by or subject.name, environment.name
        if key not in self.artifacts:
            self.artifacts[key], _, _ = self.create(subject, environment)
        made = self.artifacts[key]
        read_into_page_cache(made.store or made.path)
        return made

    def create(self, subject, environment):
        """What `subject` makes of `environment`, timed, and what a row about that says. `done` when it is not kept."""
        self.need(subject.creation_room * environment.size)
        directory = self.scratch.fresh(f"create {subject.name}")
        made = subject.create(environment, directory)
        return made, {"seconds": made.seconds, "mib": made.size / 2**20}, lambda: self.scratch.done(directory)

    def alternate(self, environment, runs, samples):
        """`alternate` with memory at hand for twice the files of `environment`, which some ways write, and for processes."""
        most = int(2.2 * environment.size) + (2 << 30)
        return alternate(runs, samples, self.say, between=lambda: settle(most))

    def need(self, size):
        """Refuses what the disk has no room for."""
        if not self.scratch.room(size):
            raise NotRun(f"needs {size / 2**30:.0f} GiB of disk, {self.scratch.free() / 2**30:.0f} are free")


def table(name, title, environment, baseline, columns, note=""):
    """An empty table. `columns` maps keys to headings."""
    return {
        "measurement": name,
        "title": title,
        "environment": environment.name if environment else None,
        "baseline": baseline,
        "columns": columns,
        "rows": [],
        "note": note,
    }


def add_rows(into, taken, reasons):
    """Adds a row per name: each a list of dictionaries of numbers, one per run; ratios to the baseline's median."""
    for name, samples in taken.items():
        if not samples or name in reasons:
            into["rows"].append({"name": name, "not_run": reasons.get(name, "not run")})
            continue
        keys = [key for key in into["columns"] if all(key in s and s[key] is not None for s in samples)]
        values = {key: summary([s[key] for s in samples]) for key in keys}
        into["rows"].append({"name": name, "values": values, "details": samples[-1].get("details", {})})
    return add_ratios(into)


def add_ratios(into):
    """Gives each row its ratios to the baseline's medians, if both are of one sitting."""
    baseline = next((r for r in into["rows"] if r["name"] == into["baseline"]), {})
    base = baseline.get("values", {})
    for row in into["rows"]:
        row.pop("ratio", None)
        if row.get("sitting") != baseline.get("sitting"):
            continue
        ratio = {
            key: round(found["median"] / base[key]["median"], 4)
            for key, found in row.get("values", {}).items()
            if base.get(key, {}).get("median")
        }
        if ratio:
            row["ratio"] = ratio
    return into
