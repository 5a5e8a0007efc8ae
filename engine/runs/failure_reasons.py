"""Reasons of failed runs that a program goes by: the worker gives them, and what helps depends on them."""

from engine.base.messages import MessageTemplate

SINGLE_EXAMPLE_TOO_LARGE = MessageTemplate(
    "out of memory at step {step} with a single example of {tokens:,} tokens: {failure}"
)
BROKEN_MODEL = MessageTemplate("the loss is {number} before the first step: {model} itself is at fault; {reason}")
