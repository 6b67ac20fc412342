"""While the first schema is being written: the modules that define tables."""

SCHEMA_MODULES = (
    "trimtab.store.schema",
    "trimtab.data.schema",
    "trimtab.tracking.schema",
    "trimtab.pipelines.schema",
    "trimtab.models.schema",
    "trimtab.monitoring.schema",
    "trimtab.serving.schema",
    "trimtab.loop.schema",
)
