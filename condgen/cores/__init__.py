"""The causal cores."""
