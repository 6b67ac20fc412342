"""Models that run code of their own (most are pickles), each in a process beside the one that serves it."""
