"""Samplers: plain functions of (core, likelihood, condition, noise)."""
