"""Settings that the model cannot follow: modules that it does not have, examples longer than its positions."""

import difflib
from collections.abc import Iterator

from engine.base.messages import msg
from engine.models.model_facts import ModelFacts, in_some_layers, short_names, without_match
from engine.runs.settings_findings import DataFacts, Finding
from engine.settings.schema import RunConfig

_ALL_LINEAR = "all-linear takes every matrix of the layers."


def check_targets(config: RunConfig, model: ModelFacts) -> Iterator[Finding]:
    """That lora.targets names modules the model has."""
    targets = config.lora.targets
    if config.method.kind == "full" or isinstance(targets, str):
        return
    if not targets:
        yield Finding("targets", "lora.targets", "lora.targets names nothing to train", _ALL_LINEAR, True)
        return
    if not model.modules:
        return
    there = short_names(model.modules)
    if wrong := without_match(targets, model.modules):
        near = [name for target in wrong for name in difflib.get_close_matches(target.strip("[]' \""), there, 1, 0.7)]
        matches = "match nothing" if len(wrong) > 1 else "matches nothing"
        hint = msg("Did you mean {near}? ", near=" and ".join(dict.fromkeys(near))) if near else ""
        yield Finding(
            "targets",
            "lora.targets",
            msg(
                "lora.targets: {wrong} {matches}; this model has {modules}",
                wrong=", ".join(wrong),
                matches=matches,
                modules=", ".join(there),
            ),
            msg(
                "{hint}Names are written q_proj,v_proj, without brackets or patterns. {all_linear}",
                hint=hint,
                all_linear=_ALL_LINEAR,
            ),
            True,
        )
        return
    for name, (some, all_of_them) in in_some_layers(targets, model.modules).items():
        yield Finding(
            "targets-in-some-layers",
            "lora.targets",
            msg(
                "lora.targets: {name} is in {some} of the model's {all_of_them} layers only",
                name=name,
                some=some,
                all_of_them=all_of_them,
            ),
        )
    shared = [target for target in targets if target.rsplit(".", 1)[-1] in ("lm_head", "embed_tokens", "wte")]
    if shared and model.tied:
        other = "the embedding" if shared[0].endswith("lm_head") else "the head"
        yield Finding(
            "not-mergeable",
            "lora.targets",
            msg(
                "lora.targets: {shared} and {other} are one matrix here: the adapter cannot be merged later",
                shared=", ".join(shared),
                other=other,
            ),
            "`finetop export --to adapter` still works; leave it out to export --to merged or gguf.",
        )


def check_positions(config: RunConfig, model: ModelFacts, data: DataFacts) -> Iterator[Finding]:
    """That no example is longer than the model has, or was made for."""
    limit = model.positions
    if limit is None or data.longest <= limit:
        return
    if model.table:
        yield position_refusal(data.longest, limit, data.beyond)
        return
    many = msg("{beyond:,} examples are", beyond=data.beyond) if data.beyond != 1 else "1 example is"
    yield Finding(
        "beyond-positions",
        "data.max_length",
        msg(
            "{many} longer than the {limit:,} tokens this model was made for, {longest:,} at most: it was never "
            "trained to read so far",
            many=many,
            limit=limit,
            longest=data.longest,
        ),
        msg("--max-length {limit} keeps within it.", limit=limit),
    )


def position_refusal(longest: int, limit: int, beyond: int = 0) -> Finding:
    """For a model whose positions are a table: a longer example has nothing to be looked up."""
    and_more = msg(" ({beyond:,} examples are longer than that)", beyond=beyond) if beyond > 1 else ""
    return Finding(
        "beyond-positions",
        "data.max_length",
        msg(
            "the longest example has {longest:,} tokens, and this model has a table of {limit:,} positions{and_more}",
            longest=longest,
            limit=limit,
            and_more=and_more,
        ),
        msg("--max-length {limit} cuts them to fit; with --set data.overlong=skip they are left out.", limit=limit),
        True,
    )
