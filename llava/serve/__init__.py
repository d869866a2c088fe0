"""Talking to a model: the chat in the terminal and what it shares with other front ends."""
