"""State: metadata, journal, leases, blobs and tables."""
