"""What the compared subjects answered to the same prompts."""

from collections.abc import Sequence

from engine.compare.comparison_records import Answers
from engine.compare.subjects import ResolvedRun, ResolvedSubject
from engine.runs.evaluation_folder import EvaluationResult, by_example, read_predictions
from engine.store import progress_queries, queries


def paired_answers(
    compared: Sequence[ResolvedSubject], chosen: Sequence[EvaluationResult | None], limit: int
) -> tuple[Answers, ...]:
    """Of evaluations on the same examples where all have one, else what was sampled during training."""
    if limit <= 0:
        return ()
    results = [result for result in chosen if result is not None]
    if len(results) == len(chosen) and len({result.data_key for result in results}) == 1:
        predictions = [by_example(read_predictions(result.folder, limit)) for result in results]
        first = predictions[0]
        if any(prediction.text is not None for prediction in first.values()):
            common = [example for example in first if all(example in answered for answered in predictions)]
            return tuple(
                Answers(
                    first[example].prompt,
                    first[example].reference,
                    tuple(answered[example].text for answered in predictions),
                    tuple(result.step for result in results),
                    tuple(answered[example].scores for answered in predictions),
                )
                for example in common[:limit]
            )
    return _sampled(compared, limit)


def _sampled(compared: Sequence[ResolvedSubject], limit: int) -> tuple[Answers, ...]:
    texts: dict[str, dict[int, str]] = {}
    references: dict[str, str | None] = {}
    steps: list[int | None] = []
    for index, resolved in enumerate(compared):
        until, step = resolved.subject.step, None
        if isinstance(resolved, ResolvedRun) and until is not None:
            step = progress_queries.sampled_step(resolved.conn, resolved.run.id, until)
        steps.append(step)
        if not isinstance(resolved, ResolvedRun) or step is None:
            continue
        for sample in queries.samples(resolved.conn, resolved.run.id, step):
            texts.setdefault(sample.prompt, {})[index] = sample.text
            if sample.reference is not None:
                references[sample.prompt] = sample.reference
    prompts = sorted(texts, key=lambda prompt: -len(texts[prompt]))  # stable: those that all answered come first
    return tuple(
        Answers(
            prompt,
            references.get(prompt),
            tuple(texts[prompt].get(index) for index in range(len(compared))),
            tuple(step if index in texts[prompt] else None for index, step in enumerate(steps)),
        )
        for prompt in prompts[:limit]
    )
