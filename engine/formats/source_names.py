"""Names for the sources of a data set, short and each its own: `web` for data/web.jsonl, `books` for data/books.csv."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from engine.formats.sources import DATA_SUFFIXES

MOST_SOURCES = 20
"""So many have figures of their own, those with the most examples: a folder may hold a thousand files."""


def source_names(paths: Iterable[str]) -> dict[str, str]:
    """A name for each file or hub dataset: the end of its path, as much of it as tells it from the others."""
    paths = list(dict.fromkeys(paths))
    parts = {path: _parts(path) for path in paths}
    depth = dict.fromkeys(paths, 1)
    while True:
        names = {path: "-".join(parts[path][-depth[path] :]) for path in paths}
        counts = Counter(names.values())
        alike = [path for path in paths if counts[names[path]] > 1 and depth[path] < len(parts[path])]
        if not alike:
            break
        for path in alike:
            depth[path] += 1
    seen: Counter[str] = Counter()
    for path, name in names.items():  # alike to the last letter: data.csv and data.json
        seen[name] += 1
        if counts[name] > 1:
            names[path] = f"{name}-{seen[name]}"
    return names


def groups(files: Sequence[str]) -> dict[str, list[int]]:
    """The examples of each source by their places; `files` says of each example where it is from. Empty where all are
    from one source; else at most MOST_SOURCES, in the order of the files."""
    counts = Counter(files)
    if len(counts) < 2:
        return {}
    largest = {file for file, _ in counts.most_common(MOST_SOURCES)}
    names = source_names(counts)
    grouped: dict[str, list[int]] = {names[file]: [] for file in counts if file in largest}
    for index, file in enumerate(files):
        if file in largest:
            grouped[names[file]].append(index)
    return grouped


def _parts(path: str) -> list[str]:
    whole = [re.sub(r"[^\w.]+", "-", part).strip("-") or "data" for part in path.split("/") if part not in ("", ".")]
    last = whole[-1] if whole else "data"
    for suffix in DATA_SUFFIXES:
        if last.lower().endswith(suffix) and len(last) > len(suffix):
            last = last[: -len(suffix)]
            break
    return [*(part[:40] for part in whole[:-1]), last[:40]]
