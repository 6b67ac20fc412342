"""The HTTP API, the status page, and the supervisor of the roles."""
