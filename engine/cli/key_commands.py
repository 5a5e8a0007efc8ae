"""`finetop serve keys` and `finetop serve usage`: who may ask the server, and what each has used."""

import argparse
import contextlib
import re
import time
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.daemon import server_state
from engine.daemon.daemon_client import make_private
from engine.plan.api_cost import answer_dollars, training_dollars
from engine.plan.cost import read_prices
from engine.present.numbers import date_time
from engine.present.text import Column, output_width, print_json, table, visible
from engine.store import queries
from engine.store.connect import reader
from engine.store.serve_database import database_file
from engine.store.serve_keys import OWNER, SCOPES, KeyStore, UsageStore
from engine.store.serve_store import ServeStore

_NAME = re.compile(r"[\w][\w.@-]{0,63}")


def run_keys(workspace: Workspace, options: argparse.Namespace) -> int:
    """`list`, `add NAME`, `revoke NAME`."""
    verb, *names = options.words or ["list"]
    if verb not in ("list", "add", "revoke") or len(names) != (verb != "list"):
        raise InputError("keys takes list, add NAME or revoke NAME", "finetop serve keys add nightly-job --scope train")
    make_private(workspace)
    with contextlib.closing(KeyStore(database_file(workspace))) as store:
        if verb == "list":
            _list(store, options.json)
        elif verb == "add":
            _add(store, names[0], options.scope or ["infer"])
        else:
            _revoke(workspace, store, names[0])
    return 0


def _list(store: KeyStore, as_json: bool) -> None:
    keys = store.all()
    if as_json:
        print_json([{"name": OWNER, "scopes": SCOPES, "created": None, "revoked": None}, *keys_as_json(keys)])
        return
    rows = [[OWNER, " ".join(SCOPES), "", "in .finetop/serve.key; `finetop serve env` prints it"]]
    rows += [
        [
            key.name,
            " ".join(key.scopes),
            date_time(key.created),
            msg("revoked {at}", at=date_time(key.revoked)) if key.revoked else "",
        ]
        for key in keys
    ]
    print(
        "\n".join(table([Column("key", least=8), Column("scopes"), Column("made"), Column("")], rows, output_width()))
    )


def keys_as_json(keys: list) -> list[dict[str, object]]:
    return [{"name": k.name, "scopes": k.scopes, "created": k.created, "revoked": k.revoked} for k in keys]


def _add(store: KeyStore, name: str, scopes: list[str]) -> None:
    if not _NAME.fullmatch(name) or name == OWNER:
        raise InputError(
            msg("a key cannot be named '{name}'", name=name), "A name is up to 64 letters, digits and . _ @ -."
        )
    print(store.add(name, scopes))
    print(msg("This is the only time it is shown. It may: {scopes}.", scopes=", ".join(scopes)))


def _revoke(workspace: Workspace, store: KeyStore, name: str) -> None:
    if name == OWNER:
        server_state.key_file(workspace).unlink(missing_ok=True)
        server_state.owner_key(workspace)
        print("The owner's key is another now: `finetop serve env` prints it.")
    elif store.revoke(name):
        print(visible(msg("'{name}' is revoked: whoever has it is refused from now on.", name=name)))
    else:
        raise InputError(msg("no key is named '{name}'", name=name), "`finetop serve keys` lists them.")


def run_usage(workspace: Workspace, options: argparse.Namespace) -> int:
    """By key: requests, tokens, and what OpenAI would have asked for them."""
    make_private(workspace)
    prices, since = read_prices(), options.since or ""
    by_key: dict[str, dict[str, Any]] = {}
    zero = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "trained_tokens": 0, "saved_dollars": 0.0}
    with contextlib.closing(UsageStore(database_file(workspace))) as usage:
        for used in usage.since(since):
            sums = by_key.setdefault(used.key, dict(zero))
            sums["requests"] += used.requests
            sums["input_tokens"] += used.input_tokens
            sums["output_tokens"] += used.output_tokens
            sums["saved_dollars"] += answer_dollars(prices, used.priced_as, used.input_tokens, used.output_tokens)
    for key, requested_model, tokens in _trained(workspace, since):
        sums = by_key.setdefault(key, dict(zero))
        sums["trained_tokens"] += tokens
        sums["saved_dollars"] += training_dollars(prices, requested_model, tokens)
    if options.json:
        dated = {"prices_as_of": prices.as_of, "since": options.since}
        print_json(dated | {"keys": [{"key": key, **sums} for key, sums in sorted(by_key.items())]})
        return 0
    if not by_key:
        print("Nothing has been used yet.")
        return 0
    rows = [
        [key, *(f"{sums[name]:,}" for name in list(zero)[:-1]), f"${sums['saved_dollars']:,.2f}"]
        for key, sums in sorted(by_key.items())
    ]
    titles = ("requests", "tokens in", "tokens out", "trained", "saved")
    print(
        "\n".join(
            table([Column("key", least=8), *(Column(title, right=True) for title in titles)], rows, output_width())
        )
    )
    print(
        msg(
            "Saved: what OpenAI charges for so many tokens ({as_of}); other names than its models' count as {model}.",
            as_of=prices.as_of,
            model=prices.compared_with,
        )
    )
    return 0


def _trained(workspace: Workspace, since: str) -> list[tuple[str, str, int]]:
    """(key, the model asked for, tokens trained on so far) of each job."""
    with contextlib.closing(ServeStore(database_file(workspace))) as store:
        jobs = [job for job in store.jobs() if time.strftime("%Y-%m-%d", time.gmtime(job.created)) >= since]
    if not jobs:
        return []
    with contextlib.closing(reader(workspace.database)) as conn:
        tokens = queries.series_of_many(conn, [job.run_id for job in jobs], "train/tokens")
    return [
        (job.record.get("key", OWNER), job.record["asked"], int(tokens[job.run_id].last or 0))
        for job in jobs
        if job.run_id in tokens
    ]
