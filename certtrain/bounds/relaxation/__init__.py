"""The relaxations, one per file; `registry` knows them by name."""
