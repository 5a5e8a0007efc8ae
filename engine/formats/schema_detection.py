"""What the columns of a file mean, judged by its first rows; DataError in the user's words when they mean nothing."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.column_tables import NumberedRow
from engine.formats.columns import Schema, find_schema, mapped_schema, normalise
from engine.formats.layouts import known_layout, map_hint
from engine.formats.preference import is_pair, pair_words, worse_columns


def file_schema(
    name: str, rows: Sequence[dict], container: str, mapping: dict[str, str], format: str, objective: str
) -> Schema:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if container == "txt":
        if mapping or format not in ("auto", "text"):
            raise DataError(
                msg("{name} is plain text; it has no columns", name=name), "Leave out --map and the format."
            )
        schema = _found(name, columns, rows, "text")
    elif mapping:
        schema = _mapped(name, columns, mapping)
    else:
        _refuse_pairs(name, rows)
        schema = _found(name, columns, rows, format)
    if schema.kind == "text" and objective == "sft":
        described = known_layout(columns, rows[0])
        if described:
            raise DataError(msg("{name} {layout}", name=name, layout=described[0]), described[1])
        end = "." if container == "txt" else map_hint(columns, rows, ", or say which column is which: ")
        raise DataError(
            msg("{name} is plain text: it has no answers to learn from", name=name),
            msg("Use --objective pretrain to learn from the text itself{end}", end=end),
        )
    is_table = container in ("csv", "tsv", "parquet") or any(isinstance(row, NumberedRow) for row in rows)
    _refuse_repeated(name, rows, schema, mapping, is_table)
    return schema


def nearest(name: str, names: Iterable[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return msg("; did you mean '{by_lower}'?", by_lower=by_lower[near[0]]) if near else ""


def _mapped(name: str, columns: list[str], mapping: dict[str, str]) -> Schema:
    for role, column in mapping.items():
        if column not in columns:
            raise DataError(
                msg(
                    "{name} has no column '{column}' (mapped to {role}){nearest}",
                    name=name,
                    column=column,
                    role=role,
                    nearest=nearest(column, columns),
                ),
                msg("Its columns: {columns}", columns=", ".join(columns)[:500]),
            )
    schema = mapped_schema(columns, mapping)
    if schema is None:
        raise DataError(
            msg("{name}: mapping {mapping} is not enough to make an example", name=name, mapping=", ".join(mapping)),
            map_hint(columns),
        )
    return schema


def _found(name: str, columns: list[str], rows: Sequence[dict], format: str) -> Schema:
    schemas = [(tuple(row), find_schema(row, format)) for row in rows]
    formats = Counter(schema.format for _, schema in schemas if schema)
    if formats:
        winner = formats.most_common(1)[0][0]
        of_winner = dict.fromkeys(
            column for keys, schema in schemas if schema and schema.format == winner for column in keys
        )
        schema = find_schema(of_winner, winner)
        if schema:
            return schema
    described = known_layout(columns, rows[0])
    if described:
        raise DataError(msg("{name} {layout}", name=name, layout=described[0]), described[1])
    if format != "auto":
        raise DataError(
            msg("{name} does not have the columns of format '{format}'", name=name, format=format),
            map_hint(columns, rows),
        )
    raise DataError(msg("{name} has no columns that finetop knows", name=name), map_hint(columns, rows))


def _refuse_pairs(name: str, rows: Sequence[dict]) -> None:
    """DataError for a file of preference pairs; single ones among other rows are refused with their line."""
    pairs = [row for row in rows if is_pair(row, worse_columns(tuple(row)))]
    if len(pairs) * 2 > len(rows):
        what, how = pair_words(tuple(pairs[0]), worse_columns(tuple(pairs[0])), pairs[0])
        raise DataError(msg("{name} holds {what}, which finetop does not train on", name=name, what=what), how)


def _refuse_repeated(name: str, rows: Sequence[dict], schema: Schema, mapping: dict[str, str], is_table: bool) -> None:
    """DataError where two columns of one row have the name that is used: which one is meant cannot be known."""
    from engine.formats.delimited import plain_name  # and csv, which JSON does without

    def bare(column: str) -> str:
        return normalise(plain_name(column) if is_table else column)

    for columns in dict.fromkeys(tuple(row) for row in rows):
        for role, column in schema.columns.items():
            twins = [other for other in columns if bare(other) == bare(column)]
            if len(twins) < 2 or column not in twins or mapping.get(role) == column:
                continue
            places = " and ".join(str(columns.index(twin) + 1) for twin in twins)
            example_map = {needed: schema.columns[needed] for needed in schema.required} | {role: twins[1]}
            which = ",".join(f"{needed}={example_map[needed]}" for needed in example_map)
            raise DataError(
                msg(
                    "{name}: the name '{column}' stands over columns {places}",
                    name=name,
                    column=plain_name(column),
                    places=places,
                ),
                msg(
                    'Give each column its own name, or say which is meant: --map "{which}" takes the second.',
                    which=which,
                ),
            )
