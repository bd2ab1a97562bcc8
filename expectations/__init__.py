"""What must hold of the data: suites as code, and thresholds with a reason and an owner."""
