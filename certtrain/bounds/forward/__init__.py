"""Forward propagation: intervals, and the middles of what is symmetric."""
