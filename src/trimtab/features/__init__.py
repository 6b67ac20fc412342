"""Features: entities, views and as-of joins; nothing is here yet."""
