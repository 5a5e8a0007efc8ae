"""What a run would need: memory, time, cost, and advice. Arithmetic only; no torch."""

from engine.plan.memory import Circumstances, MemoryEstimate, memory_estimate

__all__ = ["Circumstances", "MemoryEstimate", "memory_estimate"]
