"""The dry run's share of work that needs a tokenizer: what the data is, how long the run would be, examples as seen."""

from pathlib import Path
from typing import Any

from engine.settings.auto_values import auto_values, resolve_auto
from engine.settings.resolve import read_run
from engine.worker.data.chat_template import ChatTemplate, clock_of
from engine.worker.data.data_stats import data_stats
from engine.worker.data.tokenize import prepare
from engine.worker.model.load import generation_ends, load_tokenizer
from engine.worker.runtime.train_state import make_schedule
from engine.worker.show_turns import pieces_of


def report(folder: Path, shown: int) -> dict[str, Any]:
    """JSON-ready: `data` and `plan` as in the journal, `auto` for the settings chosen, `facts` for the plan, `examples`
    as pieces of text."""
    config = read_run(folder).config
    tokenizer, clock = load_tokenizer(config.model), clock_of(config.data)
    template = ChatTemplate(tokenizer, config.data.template, generation_ends(config.model), clock)
    dataset = prepare(config, template)
    auto = auto_values(config, len(dataset.train))
    schedule = make_schedule(resolve_auto(config, len(dataset.train)), len(dataset.train))
    lengths = dataset.train.lengths
    batch = min(schedule.batch_size, len(lengths))
    rows = len(lengths) // batch * batch
    padded = int(lengths[:rows].reshape(-1, batch).max(axis=1).sum()) * batch
    return {
        "auto": auto,
        "data": dataset.report,
        "plan": {
            "examples": schedule.examples,
            "steps_per_epoch": schedule.steps_per_epoch,
            "total_steps": schedule.total_steps,
        },
        "facts": data_stats(dataset, config, template, schedule.batch_size),
        "padding_saved": 1 - int(lengths[:rows].sum()) / padded,
        "examples": [pieces_of(template, *dataset.train.example(i)) for i in range(min(shown, len(dataset.train)))],
    }
