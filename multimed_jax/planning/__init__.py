"""What a run needs before it starts: memory, operations, traffic, fill and time."""
