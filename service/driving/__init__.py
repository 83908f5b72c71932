"""The driver of a sweep: its session, what it schedules, and its line of progress."""
