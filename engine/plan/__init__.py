"""What a run would need: memory, time, cost, and advice. Arithmetic only; no torch."""

from engine.plan.memory import EstimateInputs, MemoryEstimate, memory_estimate

__all__ = ["EstimateInputs", "MemoryEstimate", "memory_estimate"]
