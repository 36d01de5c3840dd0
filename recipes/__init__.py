"""The recipes that come with condgen, as package data."""
