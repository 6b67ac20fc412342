"""Steps and pipelines: tracing, caching, execution, jobs and the worker role."""
