"""For tests, ours and those of whoever writes an adapter: a private Postgres, and the suites that every
adapter of a port must pass.

Nothing in Trimtab itself imports from here.
"""
