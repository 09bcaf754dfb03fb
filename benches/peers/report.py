"""Writes results as JSON and Markdown, and the table of docs/speed.md, which is made from the JSON alone."""

import json
import os

# What the table of the docs says of ways that make nothing of their own.
MADE = {"this project, lazy": "as above", "uv pip install --offline": "none", "the environment itself, warm": "none"}

BEGIN, END = "<!-- benches: begin -->", "<!-- benches: end -->"


def write(directory, results):
    """Writes `results.json` and `README.md` to `directory`. Returns the path of the latter."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    path = os.path.join(directory, "README.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write(markdown(results))
    return path


def markdown(results):
    """All tables, with the machine."""
    machine = results["machine"]
    lines = [
        f"# Measurements of {results['date']}",
        "",
        f"Made by `benches/peers/run.py` from `results.json` beside this file. Revision {results['revision']}; "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB of memory, "
        f"{machine['file_system']}, Linux {machine['kernel']}.",
        "",
        "Medians, with the smallest and the largest in brackets, and the ratio to the baseline, if that is of the same sitting. Cold means "
        "an empty node cache in a fresh directory and the artifact's bytes in page cache.",
        "",
    ]
    if any(table["load_before"] > 0.5 for table in results["tables"]):
        lines += ["**Other programs ran on this machine meanwhile** (load given with each table): take ratios only.", ""]
    lines += environments(results) + goals(results.get("targets", []))
    for table in results["tables"]:
        lines += section(table, results["revision"])
    lines += ["## Versions", "", *(f"- {name}: {version}" for name, version in results["tools"].items()), ""]
    return "\n".join(lines)


def environments(results):
    """The environments."""
    lines = ["## Environments", "", "| name | distributions | files | MiB | how |", "| --- | ---: | ---: | ---: | --- |"]
    for name, found in results["environments"].items():
        size = f"{found['bytes'] / 2**20:,.0f}"
        lines.append(f"| {name} | {found['distributions']} | {found['files']:,} | {size} | {found['origin']} |")
    return [*lines, ""]


def goals(targets):
    """The targets."""
    if not targets:
        return []
    lines = ["## Targets", "", "| environment | target | at most | found | |", "| --- | --- | ---: | ---: | --- |"]
    words = {True: "reached", False: "**missed**", None: "not measured"}
    for goal in targets:
        found = "–" if goal["found"] is None else f"{number(goal['found'])} {goal['unit']}"
        limit = f"{number(goal['at_most'])} {goal['unit']}"
        lines.append(f"| {goal['environment']} | {goal['target']} | {limit} | {found} | {words[goal['reached']]} |")
    return [*lines, ""]


def section(table, revision):
    """One table."""
    of = f" ({table['environment']})" if table["environment"] else ""
    columns = table["columns"]
    heads = [head for key, head in columns.items() for head in (head, *(["ratio"] if table["baseline"] else []))]
    lines = [f"## {table['title']}{of}", ""]
    if table["note"]:
        lines += [table["note"], ""]
    if not table["rows"]:
        return lines
    lines += [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for row in table["rows"]:
        if "not_run" in row:
            lines.append(f"| {row['name']} | {row['not_run']} |{' |' * (len(heads) - 1)}")
            continue
        cells = []
        for key in columns:
            found = row["values"].get(key)
            cells.append(spread(found) if found else "–")
            if table["baseline"]:
                times = row.get("ratio", {}).get(key)
                cells.append(f"{number(times)}×" if times is not None else "–")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    if table["baseline"]:
        lines += ["", f"Baseline: {table['baseline']}."]
    notes = [runs(table["rows"]), f"load {table['load_before']} before, {table['load_after']} after"]
    if table.get("removals"):
        notes.append(f"{table['removals']} trees were deleted between samples for want of room, which slows later ones")
    if "sittings" in table:
        notes.append(f"the rows were measured in {table['sittings']} sittings")
        notes += older(table["rows"], revision)
    if "sitting" in table:
        notes.append(f"measured {table['sitting']['date']} at revision {table['sitting']['revision']}")
    return [*lines, "", f"{'; '.join(notes)}.", ""]


def older(rows, revision):
    """Which rows are of another revision."""
    of = {}
    for row in rows:
        if row.get("sitting", {}).get("revision", revision) != revision:
            of.setdefault((row["sitting"]["date"], row["sitting"]["revision"]), []).append(row["name"])
    return [f"{', '.join(names)}: {date}, at revision {at}" for (date, at), names in of.items()]


def runs(rows):
    """How many samples the rows have."""
    counts = sorted({len(next(iter(row["values"].values()))["values"]) for row in rows if row.get("values")})
    return f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} run{'' if counts == [1] else 's'} of each"


def spread(found):
    """`1.23 (1.20–1.31)`."""
    if found["min"] == found["max"]:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])}–{number(found['max'])})"


def number(value):
    """Three significant digits."""
    if abs(value) >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}" if abs(value) >= 0.0995 else f"{value:.3g}"


def newest(runs):
    """The newest results below `runs`."""
    paths = [os.path.join(root, "results.json") for root, _, names in os.walk(runs) if "results.json" in names]
    if not paths:
        raise SystemExit(f"{runs} has no results yet: measure first")
    results = [(load(path), path) for path in paths]
    return max(results, key=lambda found: (found[0]["date"], found[1]))


def load(path):
    """Reads results."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def docs_table(results, link):
    """The tables of the docs: Creation, size, first execution, as in cluster-pack's own README, and the second container."""
    machine = results["machine"]
    by = {(t["measurement"], t["environment"]): {r["name"]: r for r in t["rows"]} for t in results["tables"]}
    lines = [f"Generated by `benches/peers/run.py --update-docs` from `{link}`: medians on "
             f"{machine['cores']} cores, {machine['file_system'].split()[0]}.", ""]
    for name in results["environments"]:
        creation, starts = by.get(("creation", name), {}), by.get(("first-run", name), {})
        # Sorted, because rows of later sittings come last: ours, other tools, the environment itself.
        ours = lambda way: way.lower() if way.startswith("this project") else ""
        place = lambda way: (not ours(way), ours(way), way.startswith("the environment"))
        ways = sorted(dict.fromkeys([*starts, *creation]), key=place)
        if not ways:
            continue
        size = results["environments"][name]["bytes"] / 2**20
        lines += [f"| {name}, {size:,.0f} MiB | Creation | Size | 1st Exec | 2nd container |", "| --- | ---: | ---: | ---: | ---: |"]
        for way in ways:
            values = {**creation.get(way, {}).get("values", {}), **starts.get(way, {}).get("values", {})}
            why = next((r[way]["not_run"] for r in (creation, starts) if "not_run" in r.get(way, {})), MADE.get(way, "–"))
            cell = lambda key, unit: f"{number(values[key]['median'])} {unit}" if key in values else why.split(":")[0]
            cells = [cell(key, unit) for key, unit in (("seconds", "s"), ("mib", "MiB"), ("total", "s"), ("again", "s"))]
            lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines + goals(results.get("targets", []))[2:]).strip()


def update_docs(page, results, link):
    """Puts the table between the markers of `page`."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{docs_table(results, link)}\n{END}{after}")
