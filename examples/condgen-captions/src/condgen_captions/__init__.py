"""Captions as conditions: encoders for condgen, found by their entry points once this package is installed."""
